"""What every layout offers: a list of its images, and the bytes of each."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")


class SourceImage(NamedTuple):
    """One image of a source, and where it lies."""

    source: str  # its id: stable, unique in the source, free of the place where the source lies
    file: str  # relative to the source's root
    offset: int = 0
    length: int = -1  # -1: the whole file
    class_name: str | None = None
    group: str = ""  # images of one group are read together (a parquet row group), so they stay neighbours
    label_file: str = ""  # ground-truth label map of dense tasks, relative to the root
    labels: tuple[int, ...] = ()  # class ids of a multi-label task


class Reader(Protocol):
    """What a worker needs of a source: frozen, picklable, and small whatever the size of the data."""

    @property
    def root(self) -> str: ...

    def read(self, file: str, offset: int, length: int) -> bytes:
        """The encoded bytes of an image. Raises FileNotFoundError or PermissionError when this image alone is off,
        another OSError when its place is (worth another try, and never held against a sample).
        """
        ...


class Source(Protocol):
    """A layout, as the driver sees it."""

    @property
    def kind(self) -> str:
        """What was recognised, for people."""
        ...

    @property
    def root(self) -> str:
        """The resolved place that `SourceImage.file` is relative to."""
        ...

    def images(self) -> Iterator[SourceImage]:
        """All images, in no promised order. Raises UsageError or DataError that says what is off with the layout."""
        ...

    def class_names(self) -> tuple[str, ...] | None:
        """The class list in its own order when the source states one; None: the sorted names of its images."""
        ...

    def notes(self) -> list[str]:
        """Lines of the plan about the last listing by `images`: `columns  ...` that are read and not read, `masks ...`
        and where they come from, `left out: ...` with the number of everything passed over.
        """
        ...

    def reader(self) -> Reader:
        """What workers read the images with."""
        ...


def is_image_name(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)
