"""Folders whose labels lie beside the images: label maps of dense tasks, and a list with one or many labels each."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from pipeline.errors import UsageError
from pipeline.io import storage

from .folder import shorten
from .readers import FileReader
from .source import SourceImage, is_image_name

LABEL_LIST = "labels.csv"
CLASS_LIST = "classes.txt"
_IMAGE_FOLDERS = ("images", "image", "img", "JPEGImages")
_LABEL_FOLDERS = ("labels", "annotations", "masks", "mask", "SegmentationClass")


def dense_folders(names: list[str]) -> tuple[str, str] | None:
    """The names of the image and the label folder, when both are there."""
    images = next((name for name in _IMAGE_FOLDERS if name in names), None)
    labels = next((name for name in _LABEL_FOLDERS if name in names), None)
    return (images, labels) if images and labels else None


@dataclass(frozen=True, kw_only=True)
class DenseFolders:
    """`images/<stem>.jpg` and `labels/<stem>.png`: 8-bit label maps of the images' size. Samples have no class."""

    root: str
    image_folder: str
    label_folder: str
    kind: str = "images with label maps"

    def images(self) -> Iterator[SourceImage]:
        images, labels = (self._stems(folder) for folder in (self.image_folder, self.label_folder))
        lone, spare = sorted(images.keys() - labels.keys()), sorted(labels.keys() - images.keys())
        if not images or lone or spare:
            raise UsageError(
                f"images and label maps in {self.root} do not pair up by name: {len(images)} images and {len(labels)} "
                f"maps; images without a map: {shorten(lone)}; maps without an image: {shorten(spare)}."
            )
        for stem, name in images.items():
            file, label_file = f"{self.image_folder}/{name}", f"{self.label_folder}/{labels[stem]}"
            yield SourceImage(source=file, file=file, label_file=label_file)

    def _stems(self, folder: str) -> dict[str, str]:
        names = [name for name in storage.list_names(storage.join(self.root, folder)) if is_image_name(name)]
        found = {name.rsplit(".", 1)[0]: name for name in names}
        if len(found) < len(names):
            twice = sorted(name for name in names if name not in found.values())
            raise UsageError(
                f"{len(twice)} files in {self.root}/{folder} have the name of another one but for the ending: "
                f"{shorten(twice)}. Images and label maps are paired by name: keep one of each."
            )
        return found

    def class_names(self) -> tuple[str, ...] | None:
        """Names of the label values 0, 1, ..., when `classes.txt` lies in the folder or above it."""
        for place in (self.root, self.root.rpartition("/")[0]):
            if CLASS_LIST in storage.list_names(place):
                text = storage.read_bytes(storage.join(place, CLASS_LIST)).decode()
                return tuple(text.rstrip().splitlines()[:256])  # the newline at the end of a file begins no class
        return None

    def notes(self) -> list[str]:
        return []

    def reader(self) -> FileReader:
        return FileReader(self.root)


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
