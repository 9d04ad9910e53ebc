"""Images with label maps (segmentation): which folder holds the maps, and which map belongs to which image.

A pair is found by name: the path below its folder without the ending, and without what all images, or all maps, have at
the beginning or the end of their names (`image_001` and `mask_001`, `x_leftImg8bit` and `x_gtFine_labelIds`).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from os.path import commonprefix

from pipeline.errors import UsageError, shorten
from pipeline.io import storage
from pipeline.io.scan import find_in_parallel
from pipeline.io.text import read_text

from .fields import numbered
from .source import Source, SourceImage, is_image_name
from .splits import meaning, without_split

CLASS_LIST = "classes.txt"
_IMAGES = ("images", "image", "imgs", "img", "jpegimages", "leftimg8bit")
_LABELS = (
    "labels", "label", "annotations", "annotation", "annot", "masks", "mask", "segmentationclass",
    "segmentationclassaug", "trimaps", "gtfine", "gt", "groundtruth", "segmentation", "segmentations", "seg",
)  # fmt: skip
_FIRST = ("segmentationclass", "segmentationclassaug")  # VOC's Annotations are boxes
_KINDS = ("_labelTrainIds", "_labelIds")  # Cityscapes has several maps of an image; the first kind is read
_SEPARATORS = "_-. "


@dataclass(frozen=True)
class PairFolders:
    """Where one split's images and maps lie, relative to the root; `listed` names its images in a text file."""

    image_folder: str
    label_folder: str
    listed: str = ""


@dataclass(kw_only=True)
class LabelMaps(Source):
    """Images and 8-bit label maps of the same size. Samples have no class; the class list names label values."""

    split: PairFolders
    kind: str = "images with label maps"

    def _list(self) -> Iterator[SourceImage]:
        named = f", those that {self.split.listed} names" if self.split.listed else ""
        self.lines = [f"masks    {self.split.label_folder}, for the images in {self.split.image_folder}{named}"]
        self.classes = self._names_of_values()
        images, labels = (self._by_name(folder) for folder in (self.split.image_folder, self.split.label_folder))
        if not labels and images:
            raise UsageError(
                f"{storage.join(self.root, self.split.label_folder)} holds no label map (a PNG for each image), so "
                f"{storage.join(self.root, self.split.image_folder)} cannot be read as a segmentation set. Boxes and "
                f"polygons are not read; to take the images alone, point --source at their folder."
            )
        if self.split.listed:
            images = self._listed(images)
        images, labels = _paired(images, labels)
        if self.split.listed and images.keys() <= labels.keys():
            spare = [labels.pop(name) for name in labels.keys() - images.keys()]
            self.passed.add(f"maps that {self.split.listed} does not name", *spare)
        lone, odd = sorted(images.keys() - labels.keys()), sorted(labels.keys() - images.keys())
        if not images or lone or odd:
            raise UsageError(
                f"images and label maps in {self.root} do not pair up by name: {len(images)} images in "
                f"{self.split.image_folder} and {len(labels)} maps in {self.split.label_folder}; images without a map: "
                f"{shorten(lone)}; maps without an image: {shorten(odd)}."
            )
        for name, file in images.items():
            yield SourceImage(source=file, file=file, label_file=labels[name])

    def _by_name(self, folder: str) -> dict[str, str]:
        """File, relative to the root, by its path below `folder` without the ending."""
        files = []
        for path in find_in_parallel(storage.join(self.root, folder), passed=self.passed):
            if is_image_name(path):
                files.append(path)
            else:
                self.passed.add("files of unknown ending", f"{folder}/{path}")
        for kind in _KINDS if folder == self.split.label_folder else ():
            if chosen := [path for path in files if path.rpartition(".")[0].endswith(kind)]:
                self.passed.add(f"maps that are not {kind[1:]}", *(set(files) - set(chosen)))
                files = chosen
                break
        found = {path.rpartition(".")[0]: f"{folder}/{path}" for path in sorted(files)}
        if len(found) < len(files):
            twice = sorted(path for path in files if f"{folder}/{path}" not in found.values())
            raise UsageError(
                f"{len(twice)} files in {self.root}/{folder} have the name of another one but for the ending: "
                f"{shorten(twice)}. Images and label maps are paired by name: keep one of each."
            )
        return found

    def _listed(self, found: dict[str, str]) -> dict[str, str]:
        """Images that the list of the split names. Lines may hold more than a name, names a folder and an ending."""
        place = storage.join(self.root, self.split.listed)
        wanted = {_stem(line.split()[0]) for line in read_text(place).splitlines() if line.strip() and line[0] != "#"}
        chosen = {name: file for name, file in found.items() if _stem(file) in wanted}
        absent = sorted(wanted - {_stem(file) for file in chosen.values()})
        if absent:
            raise UsageError(
                f"{len(absent)} of the {len(wanted)} names in {place} have no image: {shorten(absent)}. "
                f"Extract the set again, or correct the list."
            )
        spare = (file for name, file in found.items() if name not in chosen)
        self.passed.add(f"images that {self.split.listed} does not name", *spare)
        return chosen

    def _names_of_values(self) -> tuple[str, ...] | None:
        """Names of the label values 0, 1, ..., when `classes.txt` lies in the folder or above it."""
        for place in (self.root, self.root.rpartition("/")[0]):
            if CLASS_LIST in storage.list_inside(place)[1]:
                text = read_text(storage.join(place, CLASS_LIST))
                return numbered(text.rstrip().splitlines()[:256])  # the newline at the end of a file begins no class
        return None


def dense_splits(root: str, folders: list[str], files: list[str], inside: bool = True) -> dict[str, PairFolders] | None:
    """Splits by their names when the folder `root`, with these `folders` and `files` inside, is a segmentation set; the
    name is "" where it has no splits. None when it is something else. Looks into the folders unless `inside` is False.
    """
    roles = {name: _role(name) for name in folders}
    pairs = {}
    for name, (split, role) in roles.items():
        maps = [other for other, found in roles.items() if found == (split, "labels")]
        if split and role in (None, "images") and maps:
            pairs[split] = PairFolders(name, min(maps))
    if pairs:
        return pairs
    images = next((name for known in _IMAGES for name in folders if name.lower() == known), None)
    known_labels = (*_FIRST, *_LABELS)
    labels = next((name for known in known_labels for name in folders if name.lower() == known), None)
    if not images or not labels:
        return None
    return _inside(root, images, labels, files) if inside else {"": PairFolders(images, labels)}


def _inside(root: str, images: str, labels: str, files: list[str]) -> dict[str, PairFolders]:
    """The splits of `images/` and `labels/`: folders in both, or lists of names, or none."""
    in_images, in_labels = (storage.list_inside(storage.join(root, folder)) for folder in (images, labels))
    found = {}
    for name in filter(meaning, in_images[0]):
        other = next((other for other in in_labels[0] if other.lower() == name.lower()), None)
        if other:
            found[name] = PairFolders(f"{images}/{name}", f"{labels}/{other}")
    if found:
        return found
    maps = f"{labels}/trimaps" if "trimaps" in in_labels[0] else labels  # Oxford Pets
    lists = {file: file for file in files}
    lists |= {file: f"{labels}/{file}" for file in in_labels[1]}
    voc = "ImageSets/Segmentation"
    lists |= {file: f"{voc}/{file}" for file in storage.list_inside(storage.join(root, voc))[1]}
    named = {file.removesuffix(".txt"): place for file, place in lists.items() if file.endswith(".txt")}
    splits = {name: PairFolders(images, maps, place) for name, place in named.items() if meaning(name)}
    return splits or {"": PairFolders(images, maps)}


def _role(name: str) -> tuple[str | None, str | None]:
    """(split, 'labels' or 'images' or None) that a folder's name says: trainannot, val_labels, masks_test, train."""
    split, rest = without_split(name)
    words = re.sub(r"[^a-z]", "", rest.lower())
    return split, "labels" if words in _LABELS else "images" if words in _IMAGES else None if not words else "other"


def _paired(images: dict[str, str], labels: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Both by names that fit each other: as they are, without common ends, or without common beginnings too."""
    tries = [(_cut(images, *marks), _cut(labels, *marks)) for marks in ((False, False), (False, True), (True, True))]
    return next(((a, b) for a, b in tries if a.keys() <= b.keys()), tries[0])


def _cut(files: dict[str, str], at_start: bool, at_end: bool) -> dict[str, str]:
    """By shorter names: without what all base names begin and end with, cut where a word ends."""
    bases = [name.rpartition("/")[2] for name in files]
    start, end = commonprefix(bases), commonprefix([base[::-1] for base in bases])[::-1]  # noqa: RUF071 - letters are meant
    start = start[: max(start.rfind(mark) for mark in _SEPARATORS) + 1] * at_start
    end = end[min((end.find(mark) for mark in _SEPARATORS if mark in end), default=len(end)) :] * at_end
    short = {}
    for (name, file), base in zip(files.items(), bases):
        core = base.removeprefix(start).removesuffix(end)
        short[name[: len(name) - len(base)] + core if core else name] = file
    return short if len(short) == len(files) else files


def _stem(path: str) -> str:
    base = path.rpartition("/")[2]
    return base.rpartition(".")[0] if is_image_name(base) else base
