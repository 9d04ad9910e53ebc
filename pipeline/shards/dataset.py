"""A finished data set: what it holds, and any sample by its number. Reading needs neither Ray nor the sources."""

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from pipeline.errors import DataError, UsageError
from pipeline.io import storage, tar
from pipeline.io.dataset_folder import DATASET_FILE, STATE_FOLDER, no_dataset
from pipeline.superpixels.segment import SuperpixelConfig

from .sample import FORMAT_VERSION, Sample, decode

COLUMNS = ("offsets", "lengths", "class_ids", "num_regions", "content_ids")  # of a sidecar: a number for each sample
ReadSpan = Callable[[str, int, int], bytes]
INDEX_DTYPE = np.dtype([("shard", "<i4"), ("offset", "<i8"), ("length", "<i4"), ("class_id", "<i4")])


def shard_name(split: str, shard: int) -> str:
    return f"{split}-{shard:06d}.tar"


def sidecar_uri(uri: str, split: str, shard: int) -> str:
    return storage.join(uri, STATE_FOLDER, "shards", f"{split}-{shard:06d}.json")


def plan_uri(uri: str, split: str) -> str:
    return storage.join(uri, STATE_FOLDER, f"plan-{split}.parquet")


def errors_uri(uri: str, split: str) -> str:
    return storage.join(uri, STATE_FOLDER, f"errors-{split}.json")


def index_uri(uri: str, split: str) -> str:
    return storage.join(uri, STATE_FOLDER, f"index-{split}.npy")


@dataclass(frozen=True, kw_only=True)
class SplitInfo:
    """What `dataset.json` says about one split."""

    num_samples: int
    num_shards: int
    num_skipped: int  # samples of the plan that could not be read and are listed in the sidecars
    num_bytes: int  # of the tars
    identity: str  # of plan and config: what a training resumes on
    fingerprint: str  # identity and the versions that shape bytes: what a preprocessing resumes on
    root_hash: str  # sha256 over the sha256 of the tars, in shard order
    source: str
    plan_sha256: str = ""  # of the file of the stored plan


@dataclass(frozen=True, kw_only=True)
class Split:
    """Samples 0..num_samples-1 of one split, in shard order. Can be pickled to loader workers."""

    uri: str
    name: str
    info: SplitInfo
    classes: tuple[str, ...]
    index: np.ndarray = field(repr=False)  # (num_samples,) of INDEX_DTYPE

    @property
    def num_samples(self) -> int:
        return len(self.index)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def identity(self) -> str:
        return self.info.identity

    @property
    def root_hash(self) -> bytes:
        return bytes.fromhex(self.info.root_hash)

    @cached_property
    def class_ids(self) -> np.ndarray:
        """int32 (num_samples,): index in the class list, -1 where a sample has no class."""
        return np.ascontiguousarray(self.index["class_id"])

    @cached_property
    def shard_sizes(self) -> np.ndarray:
        """int64 (num_shards,): samples in each shard."""
        return np.bincount(self.index["shard"], minlength=self.info.num_shards)

    @cached_property
    def shard_starts(self) -> np.ndarray:
        """int64 (num_shards + 1,): the samples of shard i are those from shard_starts[i] to shard_starts[i + 1] - 1."""
        return np.concatenate([[0], np.cumsum(self.shard_sizes)])

    @cached_property
    def proven(self) -> dict[int, tuple[int, ...]]:
        """Shards whose bytes were compared with their hash, and the state of their files then; see `proof`."""
        return {}

    def read_members(self, sample: int, read: ReadSpan = storage.read_bytes) -> tuple[str, dict[str, bytes]]:
        """Key and members of one sample, with one positioned `read`. Raises DataError when the shard is damaged."""
        row = self.index[sample]
        place = self.shard_uri(int(row["shard"]))
        try:
            span = read(place, int(row["offset"]), int(row["length"]))
        except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
            why = "is not there" if type(error) is FileNotFoundError else f"cannot be read ({error})"
            raise DataError(
                f"the shard {place} {why}. `focusvit verify {self.uri}` lists what is missing; `--repair` rebuilds it."
            ) from None
        if len(span) != row["length"]:
            raise DataError(f"the shard {place} is cut. `focusvit verify {self.uri} --repair` rebuilds it.")
        key, (_, end), found = next(tar.samples(tar.in_memory(span), len(span), place), ("", (0, 0), {}))
        if end != len(span):
            raise DataError(
                f"the {len(span)} bytes from byte {row['offset']} of the shard {place} are not one whole sample: the "
                f"shard or its index is damaged. `focusvit verify {self.uri} --repair` rebuilds it."
            )
        return key, {suffix: span[at.offset : at.offset + at.size] for suffix, at in found.items()}

    def shard_uri(self, shard: int) -> str:
        """The place of a shard's tar."""
        return storage.join(self.uri, shard_name(self.name, shard))

    def read(self, sample: int, read: ReadSpan = storage.read_bytes) -> Sample:
        """Sample 0 to num_samples - 1, whole in itself and of the class that the index states. `read(place, offset,
        length)` reads bytes of a shard.

        Raises IndexError, and DataError that names the shard and the sample.
        """
        key, members = self.read_members(sample, read)
        row = self.index[sample]
        try:
            found = decode(key, members)
        except DataError as error:
            raise DataError(f"in the shard {self.shard_uri(int(row['shard']))}: {error}") from None
        class_id = -1 if found.class_id is None else found.class_id
        if class_id != row["class_id"]:
            raise DataError(
                f"sample {key} of the shard {self.shard_uri(int(row['shard']))} states class {class_id}, and the index "
                f"of the split {row['class_id']}: one of them is damaged. `focusvit verify {self.uri}` finds which, "
                f"`--repair` mends it."
            )
        return found


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The content of `dataset.json`, and a way to its splits."""

    uri: str
    format_version: int
    classes: tuple[str, ...]
    superpixels: SuperpixelConfig
    image: dict[str, Any]  # fields of the ImageConfig that prepared the images
    splits: dict[str, SplitInfo]

    def split(self, name: str) -> Split:
        """Open a split. Raises UsageError that names those which exist."""
        if name not in self.splits:
            raise UsageError(
                f"the data set at {self.uri} has no split '{name}'; it has {', '.join(sorted(self.splits)) or 'none'}. "
                f"Choose one of these, or add it with `focusvit preprocess --split {name} --out {self.uri}`."
            )
        info = self.splits[name]
        index = read_index(self.uri, name, info)
        return Split(uri=self.uri, name=name, info=info, classes=self.classes, index=index)


def read_index(uri: str, split: str, info: SplitInfo) -> np.ndarray:
    """(num_samples,) of INDEX_DTYPE. Raises DataError when it is missing, or no index of whole, adjacent samples."""
    place = index_uri(uri, split)
    hint = f"`focusvit verify {uri} --repair` writes it again."
    try:
        index = np.lib.format.read_array(io.BytesIO(storage.read_bytes(place)), allow_pickle=False)
    except storage.StoreError:
        raise
    except Exception:  # of flipped bytes NumPy raises many kinds
        raise DataError(f"the sample index {place} is missing or damaged. {hint}") from None
    if index.dtype != INDEX_DTYPE or index.shape != (info.num_samples,):
        found = f"has {index.size} rows of {index.dtype}, but {DATASET_FILE} says {info.num_samples}"
    elif not _is_adjacent(index, info.num_shards):
        found = "names places in the tars that do not follow each other"
    else:
        return index
    raise DataError(f"the sample index {place} {found}. {hint}")


def _is_adjacent(index: np.ndarray, num_shards: int) -> bool:
    """Whether samples follow each other without a gap from the start of each shard, in the order of shards."""
    shards, starts = index["shard"].astype(np.int64), index["offset"]
    ends = starts + index["length"]
    same = shards[1:] == shards[:-1]
    return bool(
        np.all(index["length"] > 0)
        and np.all(shards[1:] >= shards[:-1])
        and np.all((0 <= shards) & (shards < num_shards))
        and np.all(starts[1:] == np.where(same, ends[:-1], 0))
        and (len(index) == 0 or starts[0] == 0)
    )


def open_dataset(uri: str) -> Dataset:
    """Open a folder that `focusvit preprocess` wrote. Raises UsageError when it is none, or of another format."""
    uri = storage.resolve(uri)
    place = storage.join(uri, DATASET_FILE)
    try:
        content = storage.read_json(place)
    except (FileNotFoundError, NotADirectoryError):
        raise no_dataset(uri) from None
    except ValueError as error:
        raise DataError(f"{place} is not valid JSON ({error}). `focusvit verify {uri} --repair` rewrites it.") from None
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise UsageError(
            f"{place} has format version {version}; this code reads version {FORMAT_VERSION}. "
            f"Use the release that wrote it, or preprocess again into another folder."
        )
    try:
        return Dataset(
            uri=uri,
            format_version=version,
            classes=tuple(content["classes"]),
            superpixels=SuperpixelConfig(**content["superpixels"]),
            image=content["image"],
            splits={name: SplitInfo(**info) for name, info in content["splits"].items()},
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{place} is damaged ({error}). `focusvit verify {uri} --repair` rewrites it.") from None
