"""What every layout offers: a list of its images, and the bytes of each."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

from pipeline.errors import UsageError
from pipeline.io.passed import PassedOver

from .readers import FileReader, Reader

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


Unlabelled = Literal["fail", "keep", "skip"]


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the user names where a guess could be wrong; "" leaves it to the layout."""

    image_member: str = ""
    """WebDataset tars with several images a sample: which one to read, by what follows the key, such as depth.png."""
    image_column: str = ""
    """Parquet files and lists: the column with the images, where it cannot be told or another one is wanted."""
    label_column: str = ""
    """Parquet files and lists: the column with the labels. WebDataset tars: the field of the json members."""
    unlabelled: Unlabelled = "fail"
    """Images without a label where others have one: refuse the source, keep them without a class, or skip them."""

    def made(self) -> dict[str, str]:
        """Those that were made, by name."""
        return {name: value for name, value in asdict(self).items() if value not in ("", "fail")}

    @classmethod
    def of(cls, made: Mapping[str, Any]) -> "Choices":
        """From what `made` gave, whatever else stands there."""
        return cls(**{name: made[name] for name in asdict(NO_CHOICES) if name in made})

    def check(self, kind: str, known: tuple[str, ...]) -> None:
        """Raises UsageError for a choice that a source of this kind has no use for."""
        for name, value in self.made().items():
            if name not in (*known, "unlabelled"):
                raise UsageError(f"--{name.replace('_', '-')} {value} says nothing about this source ({kind}).")


NO_CHOICES = Choices()


@dataclass(kw_only=True)
class Source:
    """A layout, as the driver sees it. Each kind says how it lists its images; the rest is what most have in common."""

    root: str  # the resolved place that `SourceImage.file` is relative to
    stated_classes: tuple[str, ...] | None = None  # where a file of the source lists them
    kind: str = ""  # what was recognised, for people
    choosable: ClassVar[tuple[str, ...]] = ()  # what of `Choices` it has a use for
    # Of the last listing:
    classes: tuple[str, ...] | None = field(default=None, init=False)  # in their order; None: by sorted name
    lines: list[str] = field(default_factory=list, init=False)  # `columns  ...`, `masks  ...` and what else was read
    passed: PassedOver = field(default_factory=PassedOver, init=False, repr=False)

    def images(self) -> Iterator[SourceImage]:
        """All images, in no promised order. Raises UsageError or DataError that says what is off with the layout."""
        self.classes, self.lines = self.stated_classes, []
        self.passed.clear()
        yield from self._list()

    def _list(self) -> Iterator[SourceImage]:
        raise NotImplementedError

    def notes(self) -> list[str]:
        """After `images`: lines of the plan, the last one `left out: ...` with the number of everything passed over."""
        return [*self.lines, *self.passed.lines()]

    def reader(self) -> Reader:
        """What workers read the images with."""
        return FileReader(self.root)


def is_image_name(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)
