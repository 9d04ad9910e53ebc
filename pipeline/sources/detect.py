"""From a place and a split to the layout that is there. Looks at names only, so it costs a listing or two.

**Splits.** A source has the splits that its folders, archives, lists or columns name (`splits.py`: without case, with
aliases). `--split val` takes the source's own validation split whatever it is called, and never another one: a source
whose splits lack it is refused, a source without splits is one split of any name.

**Layouts**, in this order. A folder that holds one folder and nothing else to read (`mydata/train/a`, `train/images/a`)
is that folder.

1. our own shards (`dataset.json`), parquet files, archives named after a split
2. images with label maps (`dense.py`): folders side by side (CamVid's `train`, `trainannot`), or `images/` and
   `labels/` (masks, annotations, ...) with splits as folders inside (ADE20k, Cityscapes) or as lists (VOC, Oxford Pets)
3. split folders: all folders are named after splits, or at least two of them, or one that holds folders itself. Else a
   folder `train` beside `bus` is a class
4. what one split can be: a list of labels, `images/` and `labels/`, WebDataset tars, ILSVRC2012's flat val, class
   folders, and at last images without classes

**Nothing is passed over in silence.** What is not read is counted by the source's `notes` or named by `Reading.notes`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.errors import UsageError
from pipeline.io import storage
from pipeline.io.text import read_text

from .dense import LabelMaps, dense_splits
from .folder import ANNOTATIONS, AnnotatedFolder, ClassFolders
from .hub import PREFIX, open_hub
from .ilsvrc import IlsvrcVal, is_val_name
from .lists import LABEL_LIST, LabelList
from .own_shards import DATASET_FILE, OwnShards, read_dataset_file
from .parquet import open_parquet
from .source import NO_CHOICES, Choices, Source, is_image_name
from .splits import ALIASES, chosen_split, files_of_split, meaning, named_alike, split_in, wanted_split
from .tars import TarArchive, open_tars

_KAGGLE = "ILSVRC/Data/CLS-LOC"
_KNOWN = {alias for aliases in ALIASES.values() for alias in aliases}
_IMAGE_LEVEL = ("images", "image", "img", "imgs", "jpegimages", "jpegs")
_DEEPEST = 6  # wrapping folders that are looked into
_Open = Callable[[], Source]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a place was recognised as."""

    source: Source
    splits: tuple[str, ...] = ()  # all that the place has, as it calls them; () where it has none
    chosen: str | None = None  # the one that is read
    beside: tuple[str, ...] = ()  # folders beside the splits that are not read

    def notes(self) -> list[str]:
        """Lines for people, after `source.images`: splits, columns, masks, and everything passed over."""
        lines = [f"splits   {', '.join(self.splits)}; read: {self.chosen}"] if self.splits else []
        lines += self.source.notes()
        return lines + ([f"left out: folders beside the splits: {', '.join(self.beside)}"] if self.beside else [])


def detect(uri: str, split: str, choices: Choices = NO_CHOICES) -> Source:
    """The source at `uri`: a file, a folder of one split, or a folder that holds several. Raises UsageError."""
    return look(uri, split, choices=choices).source


def look(uri: str, split: str, out: str = "", choices: Choices = NO_CHOICES) -> Reading:
    """As `detect`, with what else is there. `out` is the data set to write: where it lies below the source, it is no
    part of it. Raises UsageError, also when both are the same folder, and for choices that the source has no use for.
    """
    reading = _look(resolve_source(uri), split, out, choices)
    choices.check(reading.source.kind, reading.source.choosable)
    return reading


def _look(uri: str, split: str, out: str, choices: Choices) -> Reading:
    if uri.startswith(PREFIX):
        return Reading(source=open_hub(uri, split, choices))
    if uri == out:
        raise UsageError(f"--out {out} is the source itself. Name another folder for the shards; it may lie inside it.")
    if not storage.exists(uri):
        raise UsageError(f"the source {uri} does not exist. A source is a folder, a .tar or a .parquet file.")
    if not storage.is_folder(uri):
        folder, name = uri.rsplit("/", 1)
        return Reading(source=_file(folder, name, split, choices))
    return _Folder(uri, split, out, choices).look()


def look_for_share(uri: str, split: str, out: str = "", choices: Choices = NO_CHOICES) -> Reading:
    """As `look`, of the images that --val-share divides: the training split, or all where there are no splits."""
    reading = look(uri, split if meaning(split) == "train" else "train", out, choices)
    if own := wanted_split(reading.splits, "val"):
        raise UsageError(
            f"the source {uri} has the validation split '{own}' of its own, so --val-share would hold out a second "
            f"one. Leave --val-share out, or point --source at the folder of the split to be shared."
        )
    return reading


def resolve_source(uri: str) -> str:
    """As `storage.resolve`; the name of a data set on the Hugging Face hub stays."""
    return uri if uri.startswith(PREFIX) else storage.resolve(uri)


class _Folder:
    """A folder to be recognised, below the wrapping folders around it."""

    def __init__(self, uri: str, split: str, out: str, choices: Choices, wrapped: bool = True) -> None:
        self.split, self.out, self.choices = split, out, choices
        self.uri, self.folders, self.files = self._unwrapped(uri, wrapped)

    def look(self) -> Reading:
        if DATASET_FILE in self.files and (ours := read_dataset_file(self.uri)):
            return self._own_shards(ours)
        if parquet := self._parquet_files():
            splits = self._parquet_splits(parquet)
            return self._choose(splits) if splits else Reading(source=self._open_parquet(parquet))
        if LABEL_LIST in self.files:
            return Reading(source=self.one_split())
        if dense := dense_splits(self.uri, self.folders, self.files):
            opened: dict[str, _Open] = {
                name: partial(LabelMaps, root=self.uri, split=found) for name, found in dense.items()
            }
            return Reading(source=opened[""]()) if "" in opened else self._choose(opened)
        archives, (folders, beside) = self._archives(), self._split_folders()
        if archives or folders:
            return self._choose(archives | folders, beside)
        return Reading(source=self.one_split())

    def _choose(self, splits: dict[str, _Open], beside: list[str] | None = None) -> Reading:
        chosen = chosen_split(self.uri, splits, self.split)
        return Reading(source=splits[chosen](), splits=tuple(sorted(splits)), chosen=chosen, beside=tuple(beside or ()))

    def _unwrapped(self, uri: str, wrapped: bool) -> tuple[str, list[str], list[str]]:
        """(uri, folders, files) of the first folder on the way down that holds more than one folder. Below a split
        folder only `images/` is no class.
        """
        if storage.is_folder(storage.join(uri, _KAGGLE)):
            uri = storage.join(uri, _KAGGLE)
        folders, files = storage.list_inside(uri)
        for _ in range(_DEEPEST):
            inner = [name for name in folders if storage.join(uri, name) != self.out]
            if len(inner) != 1 or meaning(inner[0]) or any(map(_is_content, files)):
                break
            below = storage.join(uri, inner[0])
            found = storage.list_inside(below)
            if inner[0] == "data" and any(name.endswith(".parquet") for name in found[1]):
                break  # ids begin with the folder
            if inner[0].lower() not in _IMAGE_LEVEL and (not wrapped or any(map(is_image_name, found[1]))):
                break  # a class
            if not any(found):
                break
            uri, (folders, files) = below, found
        return uri, folders, files

    def _is_out(self, name: str) -> bool:
        place = storage.join(self.uri, name)
        return self.out == place or self.out.startswith(f"{place}/")

    def _own_shards(self, content: dict[str, Any]) -> Reading:
        opened = partial(OwnShards, root=self.uri, stated_classes=content["classes"])
        splits = content["splits"].items()
        return self._choose({name: partial(opened, split=name, num_shards=info["num_shards"]) for name, info in splits})

    def _parquet_files(self) -> list[str]:
        found = list(self.files)
        if "data" in self.folders:
            found += [f"data/{name}" for name in storage.list_inside(storage.join(self.uri, "data"))[1]]
        return sorted(name for name in found if name.endswith(".parquet"))

    def _parquet_splits(self, files: list[str]) -> dict[str, _Open]:
        named: dict[str, list[str]] = {}
        for file in files:
            stem = file.removeprefix("data/").removesuffix(".parquet")
            named.setdefault(split_in(stem) or stem.split("-")[0], []).append(file)
        if not any(map(meaning, named)) and wanted_split(named, self.split) is None:
            return {}
        return {name: partial(self._open_parquet, found) for name, found in named.items()}

    def _open_parquet(self, files: list[str]) -> Source:
        return open_parquet(self.uri, files, self.split, self.choices)

    def _archives(self) -> dict[str, _Open]:
        stems = {name: name.removesuffix(".tar").removeprefix("ILSVRC2012_img_") for name in self.files}
        return {
            stem: partial(_archive, self.uri, name, self.split, self.choices)
            for name, stem in stems.items()
            if name.endswith(".tar") and stem.lower() in _KNOWN
        }

    def _split_folders(self) -> tuple[dict[str, _Open], list[str]]:
        """(splits, folders beside them)."""
        mine = [name for name in self.folders if not self._is_out(name)]
        named = [name for name in mine if meaning(name) or name == self.split]
        if len(named) < len(mine) and len({meaning(name) for name in named}) < 2:
            named = [name for name in named if self._holds_no_images(name)]
        folder_of = {name: name for name in named} if any(map(meaning, named)) else named_alike(self.uri, mine)
        beside = [name for name in mine if name not in folder_of.values()]
        stated = _wnids(self.uri, self.files)
        return {name: partial(self._split_folder, folder, stated) for name, folder in folder_of.items()}, beside

    def _holds_no_images(self, name: str) -> bool:
        """False for a class that happens to be called `train`."""
        files = storage.list_inside(storage.join(self.uri, name))[1]
        return LABEL_LIST in files or not any(is_image_name(file) and not is_val_name(file) for file in files)

    def _split_folder(self, name: str, stated: tuple[str, ...] | None) -> Source:
        inner = self._below(name)
        if len(inner.folders) == 1 and not inner.files and meaning(inner.folders[0]) == meaning(name):
            inner = inner._below(inner.folders[0])
        return inner.one_split(stated)

    def _below(self, name: str) -> "_Folder":
        return _Folder(storage.join(self.uri, name), self.split, self.out, self.choices, wrapped=False)

    def one_split(self, stated: tuple[str, ...] | None = None) -> Source:
        """The folder as one split."""
        uri, files = self.uri, self.files
        parquet = [name for name in files if name.endswith(".parquet")]
        tars = [name for name in files if name.endswith(".tar")]
        images = [name for name in files if is_image_name(name)]
        if parquet:
            return self._open_parquet(parquet)
        if ANNOTATIONS in files:
            return AnnotatedFolder(root=uri, stated_classes=stated)
        if LABEL_LIST in files:
            return LabelList(root=uri, split=self.split, choices=self.choices)
        if dense := dense_splits(uri, self.folders, files):
            only = next(iter(dense)) if len(dense) == 1 else chosen_split(uri, dense, self.split)
            return LabelMaps(root=uri, split=dense[only])
        if tars and not images:
            alone = all(map(self._is_out, self.folders))
            chosen_tars = files_of_split(tars, self.split)
            if source := open_tars(uri, chosen_tars, self.split, self.choices, alone=alone):
                return source
        if images and all(map(is_val_name, images)):
            return IlsvrcVal(root=uri)
        return ClassFolders(
            root=uri,
            stated_classes=stated,
            leave_out=(self.out.removeprefix(f"{uri}/"),) if self.out.startswith(f"{uri}/") else (),
            may_lack_classes=meaning(self.split) != "train",
        )


def _is_content(name: str) -> bool:
    """Files that say what a folder is; a README or a licence beside a folder says nothing."""
    return is_image_name(name) or name.endswith((".parquet", ".tar")) or name in (DATASET_FILE, LABEL_LIST, ANNOTATIONS)


def _file(folder: str, name: str, split: str, choices: Choices) -> Source:
    if name.endswith(".parquet"):
        return open_parquet(folder, [name], split, choices)
    if name.endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")):
        raise UsageError(
            f"{folder}/{name} is compressed, so images in it cannot be read in place. "
            f"Unpack it to a plain .tar (gunzip) or to a folder, and name that with --source."
        )
    if name.endswith(".tar"):
        return _archive(folder, name, split, choices)
    raise UsageError(f"the source {folder}/{name} is a file of no known kind (.tar, .parquet), and not a folder.")


def _archive(folder: str, name: str, split: str, choices: Choices) -> Source:
    stated = _wnids(folder, storage.list_inside(folder)[1])
    return TarArchive(root=folder, name=name, split=split, stated_classes=stated, choices=choices)


def _wnids(uri: str, files: list[str]) -> tuple[str, ...] | None:
    """Tiny ImageNet states its classes in `wnids.txt`; the class id is the rank of the sorted name."""
    if "wnids.txt" not in files:
        return None
    return tuple(sorted(read_text(storage.join(uri, "wnids.txt")).split())) or None
