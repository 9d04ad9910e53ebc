"""Folders whose labels lie in a list: one or many labels for each image."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from pipeline.errors import UsageError
from pipeline.io import storage

from .readers import FileReader
from .source import SourceImage

LABEL_LIST = "labels.csv"


@dataclass(frozen=True, kw_only=True)
class LabelList:
    """A folder with `labels.csv`: a header `file,labels`, then an image path and its class names, split by `;`.

    When every image has exactly one name this is classification; otherwise samples carry a `labels` list and no class.
    """

    root: str
    kind: str = "images with a label list"

    @cached_property
    def _lines(self) -> list[tuple[str, list[str]]]:
        place = storage.join(self.root, LABEL_LIST)
        try:
            text = storage.read_bytes(place).decode("utf-8-sig")  # spreadsheets put a byte order mark first
        except UnicodeDecodeError as error:
            raise UsageError(
                f"{place} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8."
            ) from None
        lines = csv.reader(io.StringIO(text))
        columns = [name.strip() for name in next(lines, [])]
        if not {"file", "labels"} <= set(columns):
            raise UsageError(f"{place} has the columns {columns}; its first line must be: file,labels")
        found = []
        for cells in lines:
            row = dict(zip(columns, cells, strict=False))  # a short line has no label
            if file := row.get("file", "").strip():
                names = (name.strip() for name in row.get("labels", "").split(";"))
                found.append((file, [name for name in names if name]))
        return found

    def images(self) -> Iterator[SourceImage]:
        rank = {name: number for number, name in enumerate(self.class_names())}
        one_each = all(len(names) == 1 for _, names in self._lines)
        for file, names in self._lines:
            if one_each:
                yield SourceImage(source=file, file=file, class_name=names[0])
            else:
                yield SourceImage(source=file, file=file, labels=tuple(sorted(rank[name] for name in names)))

    def class_names(self) -> tuple[str, ...]:
        return tuple(sorted({name for _, names in self._lines for name in names}))

    def notes(self) -> list[str]:
        return []

    def reader(self) -> FileReader:
        return FileReader(self.root)
