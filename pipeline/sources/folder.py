"""Folders of image files: one folder per class (ImageFolder, extracted ILSVRC2012), and Tiny ImageNet's val."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.errors import UsageError
from pipeline.io import storage
from pipeline.io.scan import find_in_parallel

from .readers import FileReader
from .source import SourceImage, is_image_name

ANNOTATIONS = "val_annotations.txt"


@dataclass(frozen=True, kw_only=True)
class ClassFolders:
    """`root/<class>/**/<image>`: the first folder below the root is the class."""

    root: str
    stated_classes: tuple[str, ...] | None = None
    kind: str = "image folder"
    _left_out: Counter[str] = field(default_factory=Counter, init=False, repr=False, compare=False)

    def images(self) -> Iterator[SourceImage]:
        found: Counter[str] = Counter()
        flat, other = 0, 0
        self._left_out.clear()
        for path in find_in_parallel(self.root):
            class_name, _, rest = path.partition("/")
            if not is_image_name(path):
                other += 1
            elif not rest:
                flat += 1
            else:
                found[class_name] += 1
                yield SourceImage(source=path, file=path, class_name=class_name)
        if not found:
            raise UsageError(_nothing(self.root, flat, other))
        self._left_out.update(flat=flat, other=other)
        if storage.is_local(self.root):
            folders = [name for name in storage.list_names(self.root) if storage.is_folder(f"{self.root}/{name}")]
            empty = [name for name in folders if not name.startswith(".") and name not in found]
            if empty:
                raise UsageError(
                    f"{len(empty)} of {len(folders)} class folders in {self.root} hold no image: {shorten(empty)}. "
                    f"Was the download cut short? Fill these folders, or remove them to go without these classes."
                )

    def notes(self) -> list[str]:
        flat, other = self._left_out["flat"], self._left_out["other"]
        if not flat and not other:
            return []
        return [f"left out: {flat} images directly in {self.root}, in no class folder; {other} files of unknown ending"]

    def class_names(self) -> tuple[str, ...] | None:
        return self.stated_classes

    def reader(self) -> FileReader:
        return FileReader(self.root)


@dataclass(frozen=True, kw_only=True)
class AnnotatedFolder:
    """Tiny ImageNet's val: `images/<name>` and `val_annotations.txt` with a name and a class on each line."""

    root: str
    stated_classes: tuple[str, ...] | None = None
    kind: str = "Tiny ImageNet val folder"

    def images(self) -> Iterator[SourceImage]:
        text = storage.read_bytes(storage.join(self.root, ANNOTATIONS)).decode()
        images = {name for name in storage.list_names(storage.join(self.root, "images")) if is_image_name(name)}
        classes = match_annotations(text, images, storage.join(self.root, ANNOTATIONS))
        for name in images:
            yield SourceImage(source=f"images/{name}", file=f"images/{name}", class_name=classes[name])

    def class_names(self) -> tuple[str, ...] | None:
        return self.stated_classes

    def notes(self) -> list[str]:
        return []

    def reader(self) -> FileReader:
        return FileReader(self.root)


def match_annotations(text: str, images: set[str], place: str) -> dict[str, str]:
    """Class by image name. Raises UsageError when lines and images do not fit each other."""
    lines = [line.split("\t") if "\t" in line else line.split() for line in text.splitlines() if line.strip()]
    classes = {line[0]: line[1] for line in lines if len(line) > 1}
    if not images:
        raise UsageError(f"there is no image beside {place} (expected in the folder images/). Extract the set again.")
    unknown, absent = sorted(images - classes.keys()), sorted(classes.keys() - images)
    if unknown or absent:
        raise UsageError(
            f"{place} does not fit its images: {len(unknown)} images without a line ({shorten(unknown)}), "
            f"{len(absent)} lines without an image ({shorten(absent)}). Extract the set again."
        )
    return classes


def shorten(names: list[str], limit: int = 5) -> str:
    """The first names of a list, for an error message."""
    text = ", ".join(names[:limit]) or "none"
    return f"{text}, ... ({len(names)} in all)" if len(names) > limit else text


def _nothing(root: str, flat: int, other: int) -> str:
    if flat:
        return (
            f"{root} has no class folders: its {flat} images lie directly in it. "
            f"Put each image in a folder named after its class: {root}/<class>/<image>."
        )
    return (
        f"{root} holds no image ({other} other files). Expected {root}/<class>/<image>, a folder or file of Hugging "
        f"Face parquet, or an ILSVRC2012 or Tiny ImageNet tar; --source names the place."
    )
