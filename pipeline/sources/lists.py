"""Folders whose labels lie in a list: one or many labels for each image."""

import csv
import io
import posixpath
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from pipeline.errors import UsageError, shorten
from pipeline.io import storage
from pipeline.io.text import read_text

from .fields import ClassNames, read_label
from .source import NO_CHOICES, Choices, Source, SourceImage, is_image_name
from .splits import chosen_split

LABEL_LIST = "labels.csv"
_FILE, _LABELS, _SPLIT = "file", "labels", "split"


class _Line(NamedTuple):
    file: str  # relative to the root, in its shortest form
    labels: tuple[str, ...]
    split: str
    number: int  # of its last line in the list


@dataclass(kw_only=True)
class LabelList(Source):
    """A folder with `labels.csv`: a header `file,labels`, then an image path and its class names, split by `;`.

    Where a line has several names, samples carry a `labels` list and no class; otherwise this is classification. A
    column `split` says which lines are read.
    """

    split: str | None = None  # the wanted value of the split column; None reads all lines
    choices: Choices = NO_CHOICES
    kind: str = "images with a label list"
    choosable = ("image_column", "label_column")

    @property
    def _place(self) -> str:
        return storage.join(self.root, LABEL_LIST)

    def _list(self) -> Iterator[SourceImage]:
        lines = self._read()
        missing = self._missing(lines) if storage.is_local(self.root) else []  # a store would list a million objects
        several = any(len(line.labels) > 1 for line in lines.values())  # of any split, so that all are read alike
        if several:
            found = {name for line in lines.values() for name in line.labels}
            by = int if all(map(str.isdecimal, found)) else str
            self.classes = tuple(sorted(found, key=by))
        lines = self._of_split(lines)
        yield from self._with_lists(lines) if several else self._with_classes(lines)
        if missing:
            self.lines.append(f"missing: {len(missing)} lines name a file that is not there ({shorten(missing, 3)})")

    def _with_lists(self, lines: dict[str, _Line]) -> Iterator[SourceImage]:
        rank = {name: number for number, name in enumerate(self.classes or ())}
        for file, line in _emptied(lines):
            yield SourceImage(source=file, file=file, labels=tuple(sorted(rank[name] for name in line.labels)))

    def _with_classes(self, lines: dict[str, _Line]) -> Iterator[SourceImage]:
        classes = ClassNames()
        for file, line in _emptied(lines):
            place = f"line {line.number} of {self._place}"
            label = read_label("".join(line.labels), place)
            yield SourceImage(source=file, file=file, class_name=classes.name(label, place))
        self.classes = classes.ordered()
        self.lines += classes.note()

    def _read(self) -> dict[str, _Line]:
        """Lines by file. Raises UsageError that names the line that cannot be what was meant."""
        found: dict[str, _Line] = {}
        # A StringIO would take four bytes a character.
        text = io.TextIOWrapper(io.BytesIO(read_text(self._place).encode()), encoding="utf-8", newline="")
        lines = csv.reader(text, strict=True)
        try:
            columns = self._columns([name.strip() for name in next(lines, [])])
            for cells in lines:
                if any("\n" in cell or "\r" in cell for cell in cells):
                    raise csv.Error('a quote " is opened and not closed on its line')
                if len(cells) > len(columns) and any(map(str.strip, cells[len(columns) :])):
                    raise csv.Error(f"{len(cells)} cells for {len(columns)} columns: a name with a comma needs quotes")
                line = self._line(dict(zip(columns, cells, strict=False)), lines.line_num)  # a short line has no label
                if line and (before := found.setdefault(line.file, line)) is not line:
                    self._settle(before, line)
        except csv.Error as error:
            raise UsageError(f"line {lines.line_num} of {self._place}: {error}.") from None
        return found

    def _columns(self, columns: list[str]) -> list[str]:
        """Header with the chosen columns under the names that are read here."""
        image, label = self.choices.image_column or _FILE, self.choices.label_column or _LABELS
        if not {image, label} <= set(columns) or len(set(filter(None, columns))) < len(list(filter(None, columns))):
            raise UsageError(
                f"{self._place} has the columns {columns}; its first line must be: file,labels. Other columns are read "
                f"when --image-column and --label-column name them."
            )
        others = [name for name in columns if name not in (image, label, _SPLIT)]
        self.lines.append(
            f"columns: image from '{image}'; label from '{label}'" + f"; not read: {', '.join(others)}" * bool(others)
        )
        return [{image: _FILE, label: _LABELS}.get(name, name if name == _SPLIT else "") for name in columns]

    def _line(self, row: dict[str, str], number: int) -> _Line | None:
        file = row.get(_FILE, "").strip().replace("\\", "/")
        if not file:
            return None
        file = posixpath.normpath(file.removeprefix(f"{self.root}/"))
        return _Line(file, _names(row.get(_LABELS, "")), sys.intern(row.get(_SPLIT, "").strip()), number)

    def _settle(self, before: _Line, line: _Line) -> None:
        """A second line for a file must say the same. Raises UsageError."""
        if set(before.labels) == set(line.labels) and before.split == line.split:
            return
        said = (f"'{';'.join(one.labels)}'{f' in {one.split}' if one.split else ''}" for one in (before, line))
        raise UsageError(
            f"{self._place} names {line.file} on the lines {before.number} and {line.number}, as "
            f"{' and as '.join(said)}. Keep one line; several labels of one image stand in it, split by ';'."
        )

    def _of_split(self, lines: dict[str, _Line]) -> dict[str, _Line]:
        names = sorted({line.split for line in lines.values()} - {""})
        if not names or self.split is None:
            return lines
        wanted = chosen_split(self._place, names, self.split)
        for line in lines.values():
            if line.split != wanted:
                self.passed.add(f"lines of the split {line.split or '(none)'}", line.file)
        return {file: line for file, line in lines.items() if line.split == wanted}

    def _missing(self, lines: dict[str, _Line]) -> list[str]:
        """Files that lines name and that are not there; counts images that no line names. One listing of the folder."""
        num_found = 0
        for file in storage.find_files(self.root):
            if file in lines:
                num_found += 1
            elif is_image_name(file):
                self.passed.add("images that no line names", file)
        if num_found == len(lines):
            return []
        return [file for file in lines if not storage.exists(storage.join(self.root, file))]


def _emptied(lines: dict[str, _Line]) -> Iterator[tuple[str, _Line]]:
    """All lines in order, each let go of: a million of them and the plan made of them would not fit together."""
    files = list(lines)[::-1]
    while files:
        file = files.pop()
        yield file, lines.pop(file)


@lru_cache(maxsize=65_536)  # a million lines share a thousand labels, and one tuple for each
def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(";") if name.strip()))
