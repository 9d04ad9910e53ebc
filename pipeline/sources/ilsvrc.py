"""ILSVRC2012's validation images: flat names, with classes in the devkit or in Kaggle's list. And its known counts."""

import contextlib
import csv
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.errors import DataError, UsageError, shorten
from pipeline.io import storage

from .source import Source, SourceImage

NUM_IMAGES = {"train": 1_281_167, "val": 50_000, "test": 100_000}
NUM_CLASSES = 1000
_WHOLE_ENOUGH = 900
_KAGGLE_LIST = "LOC_val_solution.csv"
_DEVKIT = "ILSVRC2012_devkit_t12"
_TRUTH, _META = "data/ILSVRC2012_validation_ground_truth.txt", "data/meta.mat"
_LEVELS_UP = 4  # Kaggle keeps its list four folders above its validation images


def is_val_name(name: str) -> bool:
    return name.startswith("ILSVRC2012_val_") and name.upper().endswith(".JPEG")


def is_wnid(name: str) -> bool:
    return len(name) == 9 and name[0] == "n" and name[1:].isdigit()


def val_classes(folder: str) -> dict[str, str]:
    """wnid by image name without its ending, from the devkit or Kaggle's list in `folder` or above it.

    Raises UsageError when there is neither: the names of the images do not tell their classes. Raises DataError when
    what is there cannot be read.
    """
    place = folder
    for _ in range(_LEVELS_UP + 1):
        names = storage.list_names(place)
        if _KAGGLE_LIST in names:
            return _from_kaggle(storage.join(place, _KAGGLE_LIST))
        if f"{_DEVKIT}.tar.gz" in names:
            return _from_devkit_archive(storage.join(place, f"{_DEVKIT}.tar.gz"))
        if _DEVKIT in names:
            with _reading(storage.join(place, _DEVKIT)):
                files = [storage.read_bytes(storage.join(place, _DEVKIT, name)) for name in (_TRUTH, _META)]
                return _from_devkit(*files)
        if not place.rpartition("/")[0].strip(":/"):
            break
        place = place.rpartition("/")[0]
    raise UsageError(
        f"the validation images in {folder} are named without their classes. Put the devkit ({_DEVKIT}.tar.gz) or "
        f"Kaggle's {_KAGGLE_LIST} beside them, or sort them into class folders."
    )


@contextlib.contextmanager
def _reading(place: str) -> Iterator[None]:
    """What goes wrong inside becomes a DataError that names the list of classes."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # gzip, tarfile and scipy each have their own kinds for a file that was cut
        raise DataError(
            f"the classes of the validation images cannot be read from {place} ({type(error).__name__}: {error}). "
            f"Fetch it again."
        ) from error


def _from_kaggle(place: str) -> dict[str, str]:
    with _reading(place):
        rows = csv.DictReader(io.StringIO(storage.read_bytes(place).decode()))
        if not {"ImageId", "PredictionString"} <= set(rows.fieldnames or ()):
            raise DataError(
                f"{place} has the columns {rows.fieldnames}; its first line must be: ImageId,PredictionString. "
                f"Fetch it again."
            )
        classes = {row["ImageId"]: (row["PredictionString"] or "").split()[:1] for row in rows}
    without = [name for name, words in classes.items() if not words]
    if without:
        raise DataError(f"{place} names no class for {shorten(without)}. Fetch it again.")
    return {name: words[0] for name, words in classes.items()}


def _from_devkit_archive(place: str) -> dict[str, str]:
    with _reading(place), tarfile.open(fileobj=io.BytesIO(storage.read_bytes(place))) as archive:
        found = {name: n for n in archive.getnames() for name in (_TRUTH, _META) if n.endswith(name)}
        if len(found) < 2:
            raise DataError(f"{place} does not hold both {_TRUTH} and {_META}. Fetch it again.")
        contents = [archive.extractfile(found[name]) for name in (_TRUTH, _META)]
        return _from_devkit(*(file.read() for file in contents if file))


def _from_devkit(truth: bytes, meta: bytes) -> dict[str, str]:
    """Line i of the truth is the ILSVRC id (not the class index!) of image i; the id's wnid is in meta.mat."""
    from scipy.io import loadmat

    synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
    wnid = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets if int(row["num_children"]) == 0}
    return {f"ILSVRC2012_val_{i:08d}": wnid[int(line)] for i, line in enumerate(truth.split(), 1)}


def match(names: list[str], classes: dict[str, str], place: str) -> list[tuple[str, str]]:
    """(name, wnid) of each image. Raises UsageError for images that the list does not know."""
    stems = [name.rsplit("/", 1)[-1].rsplit(".", 1)[0] for name in names]
    unknown = [stem for stem in stems if stem not in classes]
    if unknown:
        raise UsageError(f"{len(unknown)} images in {place} have no class in the list beside them: {shorten(unknown)}.")
    return [(name, classes[stem]) for name, stem in zip(names, stems)]


@dataclass(kw_only=True)
class IlsvrcVal(Source):
    """A flat folder of validation images; ids are `<wnid>/<name>`, as after sorting them into class folders."""

    kind: str = "ILSVRC2012 validation folder"

    def _list(self) -> Iterator[SourceImage]:
        names = [name for name in storage.list_names(self.root) if is_val_name(name)]
        for name, wnid in match(names, val_classes(self.root), self.root):
            yield SourceImage(source=f"{wnid}/{name}", file=name, class_name=wnid)


def diagnosis(split: str, class_counts: dict[str, int]) -> str | None:
    """What is off with the classes or counts of an ILSVRC2012 source; None when nothing is, or when it is another
    collection: fewer than 900 wnids are a subset that somebody chose.
    """
    wnids = {name for name in class_counts if is_wnid(name)}
    expected, found = NUM_IMAGES.get(split), sum(class_counts.values())
    if len(wnids) < _WHOLE_ENOUGH or expected is None:
        return None
    others = sorted(class_counts.keys() - wnids)
    if len(wnids) != NUM_CLASSES or others:
        more = f" and {len(others)} that are no wnid ({shorten(others)})" if others else ""
        return (
            f"ILSVRC2012 has {NUM_CLASSES} classes, this source {len(wnids)}{more}. Was the download or extraction cut "
            f"short, or are folders of something else among the classes? A class id is the rank of the sorted name, so "
            f"all ids after a missing one would be shifted."
        )
    if found == expected:
        return None
    fewest = sorted(class_counts.items(), key=lambda item: item[1])[:3]
    return (
        f"ILSVRC2012 {split} has {expected} images, this source {found}; the smallest classes here are "
        f"{', '.join(f'{name} ({count})' for name, count in fewest)}. Was the download or extraction cut short?"
    )
