"""Shards of an object store, kept on the local disk up to a size. Several processes may share one cache folder.

A shard is downloaded once, under a lock of its own, into a temporary file that is renamed when it is whole; a crash
leaves nothing that a later run would take for good. Beyond the limit the shards used longest ago are deleted.
"""

import contextlib
import fcntl
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import storage
from pipeline.dataset import Split, shard_name
from pipeline.errors import DataError
from pipeline.sample import Sample


class CachedSplit:
    """A split whose reads go through local copies of its shards. Everything else is the split's own."""

    def __init__(self, split: Split, cache_dir: str, limit_bytes: float) -> None:
        # The root hash is part of the folder's name: shards that were built again are never mixed with old ones.
        name = hashlib.sha256(f"{split.uri}\0{split.info.root_hash}".encode()).hexdigest()[:24]
        self._root, self._folder = Path(cache_dir), Path(cache_dir, name)
        self._split, self._limit_bytes = split, limit_bytes
        self._local = replace(split, uri=str(self._folder))
        self._folder.mkdir(parents=True, exist_ok=True)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._split, name)

    def read(self, sample: int) -> Sample:
        """As `Split.read`. Downloads the sample's shard when it is not here."""
        name = shard_name(self._split.name, int(self._split.index[sample]["shard"]))
        for attempt in range(3):
            self._fetch(name)
            try:
                return self._local.read(sample)
            except DataError:
                if attempt == 2 or (self._folder / name).exists():
                    raise
        raise AssertionError("unreachable")  # another process deleted the shard three times between two lines

    def _fetch(self, name: str) -> None:
        place = self._folder / name
        if place.exists():
            with contextlib.suppress(FileNotFoundError):
                place.touch()  # used now: the last to be deleted
            return
        with _locked(self._folder / f"{name}.lock"):
            if not place.exists():
                storage.put(str(place), storage.read_bytes(storage.join(self._split.uri, name)))
                self._make_room(place)

    def _make_room(self, newest: Path) -> None:
        shards = []
        for path in self._root.glob("*/*.tar"):
            with contextlib.suppress(FileNotFoundError):
                shards.append((path.stat().st_mtime, path.stat().st_size, path))
        total = sum(size for _, size, _ in shards)
        for _, size, path in sorted(shards):
            if total <= self._limit_bytes:
                return
            if path != newest:
                path.unlink(missing_ok=True)
                total -= size


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the lock goes when its holder dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def cached(split: Split, cache_dir: str | None, limit_gb: float) -> Split:
    """The split, read through a cache when it lies in an object store and a cache folder is given."""
    if cache_dir is None or storage.is_local(split.uri):
        return split
    return CachedSplit(split, cache_dir, limit_gb * 1e9)  # type: ignore[return-value]


def check_whole(split: Split) -> None:
    """Raise `DataError` when a local shard is shorter than its index says: a cut tar must not pass for a small one.

    A store is not asked (one request a shard); there, a read that comes back short says so.
    """
    if not storage.is_local(split.uri):
        return
    ends = np.zeros(split.info.num_shards, np.int64)
    np.maximum.at(ends, split.index["shard"], split.index["offset"] + split.index["length"])
    for shard, end in enumerate(ends.tolist()):
        place = storage.join(split.uri, shard_name(split.name, shard))
        found = storage.size(place) if storage.exists(place) else -1
        if found < end:
            raise DataError(
                f"the shard {place} {'is missing' if found < 0 else f'has {found} bytes and needs {end}'}. "
                f"`focusvit verify {split.uri} --repair` rebuilds it."
            )
