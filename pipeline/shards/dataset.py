"""A finished data set: what it holds, and any sample by its number. Reading needs neither Ray nor the sources."""

import io
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from pipeline.errors import DataError, UsageError
from pipeline.io import storage, tar
from pipeline.superpixels.segment import SuperpixelConfig

from .sample import FORMAT_VERSION, Sample, decode

DATASET_FILE = "dataset.json"
STATE_FOLDER = ".focusvit"
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

    def read_members(self, sample: int) -> tuple[str, dict[str, bytes]]:
        """Key and members of one sample, with one positioned read. Raises DataError when the shard is damaged."""
        row = self.index[sample]
        place = storage.join(self.uri, shard_name(self.name, int(row["shard"])))
        try:
            span = storage.read_bytes(place, int(row["offset"]), int(row["length"]))
        except FileNotFoundError:
            raise DataError(
                f"the shard {place} is not there. `focusvit verify {self.uri}` lists what is missing; "
                f"`--repair` rebuilds it."
            ) from None
        if len(span) != row["length"]:
            raise DataError(f"the shard {place} is cut. `focusvit verify {self.uri} --repair` rebuilds it.")
        key, found = "", {}
        for member in tar.members(lambda at, length: span[at : at + length], 0, len(span), place):
            key, _, suffix = member.name.partition(".")
            found[suffix] = span[member.offset : member.offset + member.size]
        return key, found

    def read(self, sample: int) -> Sample:
        """One sample. `sample` counts from 0 to num_samples - 1; raises IndexError, DataError."""
        return decode(*self.read_members(sample))


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
        place = index_uri(self.uri, name)
        try:
            index = np.load(io.BytesIO(storage.read_bytes(place)), allow_pickle=False)
        except (FileNotFoundError, ValueError, EOFError):
            raise DataError(
                f"the sample index {place} is missing or damaged. "
                f"`focusvit verify {self.uri} --repair` writes it again."
            ) from None
        if index.dtype != INDEX_DTYPE or len(index) != info.num_samples:
            raise DataError(
                f"the sample index {place} has {len(index)} rows of {index.dtype}, but {DATASET_FILE} says "
                f"{info.num_samples}. `focusvit verify {self.uri} --repair` writes it again."
            )
        return Split(uri=self.uri, name=name, info=info, classes=self.classes, index=index)


def open_dataset(uri: str) -> Dataset:
    """Open a folder that `focusvit preprocess` wrote. Raises UsageError when it is none, or of another format."""
    uri = storage.resolve(uri)
    place = storage.join(uri, DATASET_FILE)
    try:
        content = storage.read_json(place)
    except (FileNotFoundError, NotADirectoryError):
        started = any(name.startswith("plan-") for name in storage.list_names(storage.join(uri, STATE_FOLDER)))
        hint = (
            "Its preprocessing was interrupted: run the same `focusvit preprocess` again, it goes on where it stopped."
            if started
            else f"Make one with `focusvit preprocess --source SRC --out {uri} --split train`."
        )
        raise UsageError(f"{uri} holds no data set ({DATASET_FILE} is not there). {hint}") from None
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
