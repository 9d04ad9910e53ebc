"""From a place and a split to the layout that is there. Looks at names only, so it costs a listing or two."""

from pipeline.errors import UsageError
from pipeline.io import storage

from .folder import ANNOTATIONS, AnnotatedFolder, ClassFolders, shorten
from .hub import PREFIX, open_hub
from .ilsvrc import IlsvrcVal, is_val_name
from .lists import LABEL_LIST, DenseFolders, LabelList, dense_folders
from .parquet import open_parquet
from .source import Source, is_image_name
from .splits import ALIASES
from .tars import TarArchive, first_names
from .wds import WebDatasetTars, choose_split, is_webdataset, read_class_names

_KAGGLE = "ILSVRC/Data/CLS-LOC"
_KNOWN = {alias for aliases in ALIASES.values() for alias in aliases}


def detect(uri: str, split: str) -> Source:
    """The source at `uri`: a file, a folder of one split, or a folder that holds several. Raises UsageError."""
    uri = resolve_source(uri)
    if uri.startswith(PREFIX):
        return open_hub(uri, split, ALIASES.get(split, (split,)))
    if not storage.exists(uri):
        raise UsageError(f"the source {uri} does not exist. --source takes a folder, a .tar or a .parquet file.")
    folder, name = uri.rsplit("/", 1)
    if not storage.is_folder(uri):
        return _file(folder, name)
    if storage.is_folder(storage.join(uri, _KAGGLE)):
        uri = storage.join(uri, _KAGGLE)
    names = storage.list_names(uri)
    parquet = sorted(path for path in _candidates(uri, names) if path.endswith(".parquet"))
    if parquet:
        return _parquet(uri, parquet, split)
    for alias in ALIASES.get(split, (split,)):
        for archive in (f"{alias}.tar", f"ILSVRC2012_img_{alias}.tar"):
            if archive in names:
                return _archive(uri, archive)
        if alias in names and _is_split_folder(storage.join(uri, alias)):
            return _folder(storage.join(uri, alias), split, stated=_wnids(uri, names))
    others = [name for name in names if name.removesuffix(".tar").removeprefix("ILSVRC2012_img_") in _KNOWN]
    others = [name for name in others if name.endswith(".tar") or _is_split_folder(storage.join(uri, name))]
    if others:
        raise UsageError(
            f"the source {uri} has no split '{split}'; it holds {', '.join(others)}. "
            f"Name one of these with --split, or point --source at the folder or file of this split."
        )
    return _folder(uri, split, stated=None)


def resolve_source(uri: str) -> str:
    """As `storage.resolve`; the name of a data set on the Hugging Face hub stays."""
    return uri if uri.startswith(PREFIX) else storage.resolve(uri)


def _file(folder: str, name: str) -> Source:
    if name.endswith(".parquet"):
        return open_parquet(folder, [name])
    if name.endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")):
        raise UsageError(
            f"{folder}/{name} is compressed, so images in it cannot be read in place. "
            f"Unpack it to a plain .tar (gunzip) or to a folder, and name that with --source."
        )
    if name.endswith(".tar"):
        return _archive(folder, name)
    raise UsageError(f"the source {folder}/{name} is a file of no known kind (.tar, .parquet), and not a folder.")


def _archive(folder: str, name: str) -> Source:
    if is_webdataset(first_names(storage.join(folder, name))):
        return WebDatasetTars(root=folder, files=(name,), stated_classes=read_class_names(folder))
    return TarArchive(root=folder, name=name, stated_classes=_wnids(folder, storage.list_names(folder)))


def _folder(uri: str, split: str, stated: tuple[str, ...] | None) -> Source:
    """A folder that holds one split."""
    names = storage.list_names(uri)
    parquet = [name for name in names if name.endswith(".parquet")]
    tars = [name for name in names if name.endswith(".tar")]
    dense = dense_folders(names)
    if parquet:
        return open_parquet(uri, parquet)
    if ANNOTATIONS in names:
        return AnnotatedFolder(root=uri, stated_classes=stated)
    if LABEL_LIST in names:
        return LabelList(root=uri)
    if dense:
        return DenseFolders(root=uri, image_folder=dense[0], label_folder=dense[1])
    if tars and is_webdataset(first_names(storage.join(uri, tars[0]))):
        files = choose_split(tars, split, ALIASES.get(split, (split,)), _KNOWN)
        return WebDatasetTars(root=uri, files=tuple(files), stated_classes=read_class_names(uri))
    if names and all(is_val_name(name) for name in names if is_image_name(name)) and any(map(is_val_name, names)):
        return IlsvrcVal(root=uri)
    return ClassFolders(root=uri, stated_classes=stated)


def _is_split_folder(uri: str) -> bool:
    """True for a folder of class folders, and False for a class that happens to be called `train`."""
    if not storage.is_folder(uri):
        return False
    names = storage.list_names(uri)
    if LABEL_LIST in names:
        return True
    return not any(is_image_name(name) and not is_val_name(name) for name in names)


def _candidates(uri: str, names: list[str]) -> list[str]:
    inner = storage.list_names(storage.join(uri, "data")) if "data" in names else []
    return names + [f"data/{name}" for name in inner]


def _parquet(uri: str, files: list[str], split: str) -> Source:
    splits: dict[str, list[str]] = {}
    for file in files:
        stem = file.removeprefix("data/").removesuffix(".parquet")
        splits.setdefault(stem.split("-")[0], []).append(file)
    for alias in ALIASES.get(split, (split,)):
        if alias in splits:
            return open_parquet(uri, splits[alias])
    raise UsageError(
        f"the parquet files in {uri} have no split '{split}'; their names say {shorten(sorted(splits))}. "
        f"Name one of these with --split, or point --source at one file."
    )


def _wnids(uri: str, names: list[str]) -> tuple[str, ...] | None:
    """Tiny ImageNet states its classes in `wnids.txt`; the class id is the rank of the sorted name."""
    if "wnids.txt" not in names:
        return None
    return tuple(sorted(storage.read_bytes(storage.join(uri, "wnids.txt")).decode().split())) or None
