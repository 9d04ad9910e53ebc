"""Folders of image files: one folder per class (ImageFolder, extracted ILSVRC2012), and Tiny ImageNet's val."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.errors import UsageError, shorten
from pipeline.io import storage
from pipeline.io.dataset_folder import STATE_FOLDER
from pipeline.io.scan import find_in_parallel
from pipeline.io.text import read_text

from .source import Source, SourceImage, is_image_name

ANNOTATIONS = "val_annotations.txt"


@dataclass(kw_only=True)
class ClassFolders(Source):
    """`root/<class>/**/<image>`: the first folder below the root is the class. Images that all lie directly in the root
    have no class.
    """

    leave_out: tuple[str, ...] = ()  # folders below the root that are not the source's (the output)
    may_lack_classes: bool = False  # a val or test split: an empty class folder is said, not refused
    kind: str = "image folder"

    def _list(self) -> Iterator[SourceImage]:
        found, flat = Counter[str](), []
        folders, _ = storage.list_inside(self.root)
        own = [name for name in folders if _is_own(storage.join(self.root, name))]
        for path in find_in_parallel(self.root, (*self.leave_out, *own), self.passed):
            class_name, _, rest = path.partition("/")
            if not is_image_name(path):
                self.passed.add("files of unknown ending", path)
            elif not rest:
                flat.append(path)
            else:
                found[class_name] += 1
                yield SourceImage(source=path, file=path, class_name=class_name)
        if found:
            self.passed.add(f"images directly in {self.root}, in no class folder", *flat)
            self._look_at_empty([name for name in folders if name not in found and name not in own], len(folders))
        elif flat:
            self.lines.append(
                f"no classes: all {len(flat)} images lie directly in {self.root}, so samples get none. "
                f"Training needs {self.root}/<class>/<image>, or {self.root}/labels.csv with the columns file,labels"
            )
            yield from (SourceImage(source=name, file=name) for name in flat)
        else:
            said = "".join(f" ({line})" for line in self.passed.lines())
            raise UsageError(
                f"{self.root} holds no image{said}. Expected {self.root}/<class>/<image>, a folder or file of "
                f"Hugging Face parquet, or an ILSVRC2012 or Tiny ImageNet tar; --source names the place."
            )

    def _look_at_empty(self, empty: list[str], num_folders: int) -> None:
        empty = [name for name in empty if not any(f"{place}/".startswith(f"{name}/") for place in self.leave_out)]
        if empty and not self.may_lack_classes:
            raise UsageError(
                f"{len(empty)} of {num_folders} class folders in {self.root} hold no image: {shorten(empty)}. "
                f"Was the download cut short? Fill these folders, or remove them to go without these classes."
            )
        self.passed.add("class folders without an image", *empty)


@dataclass(kw_only=True)
class AnnotatedFolder(Source):
    """Tiny ImageNet's val: `images/<name>` and `val_annotations.txt` with a name and a class on each line."""

    kind: str = "Tiny ImageNet val folder"

    def _list(self) -> Iterator[SourceImage]:
        place = storage.join(self.root, ANNOTATIONS)
        images = {name for name in storage.list_names(storage.join(self.root, "images")) if is_image_name(name)}
        classes = match_annotations(read_text(place), images, place)
        for name in images:
            yield SourceImage(source=f"images/{name}", file=f"images/{name}", class_name=classes[name])


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


def _is_own(folder: str) -> bool:
    """Whether a folder is a data set that this project wrote, finished or not."""
    return storage.is_local(folder) and storage.exists(storage.join(folder, STATE_FOLDER))
