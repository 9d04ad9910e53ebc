"""Shards of an object store or of mounted storage, kept on the local disk up to a size. Several processes may share
one cache folder.

A sample whose shard is not here yet is read by its range alone, so nothing waits for a whole shard; the shard follows
in the background, and so do those that the order says come next. A shard is downloaded once, under a lock of its own,
into a temporary file that is renamed when it is whole and has the hash of its sidecar; what a crash leaves is removed
by the next opening. Beyond the limit the shards used longest ago are deleted.
"""

import contextlib
import fcntl
import hashlib
import os
import queue
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import DataError, UsageError
from pipeline.io import storage
from pipeline.shards.dataset import ReadSpan, Split, shard_name
from pipeline.shards.proof import prove_bytes
from pipeline.shards.sample import Sample


class CachedSplit:
    """A split whose reads go through local copies of its shards. Everything else is the split's own."""

    def __init__(self, split: Split, cache_dir: str, limit_bytes: float) -> None:
        # The root hash is part of the folder's name: shards that were built again are never mixed with old ones.
        name = hashlib.sha256(f"{split.uri}\0{split.info.root_hash}".encode()).hexdigest()[:24]
        self._root, self._folder = Path(cache_dir), Path(cache_dir, name)
        self._split, self._limit_bytes = split, limit_bytes
        self._local = replace(split, uri=str(self._folder))
        self._folder.mkdir(parents=True, exist_ok=True)
        self.num_leftovers = _remove_leftovers(self._root)
        if self.num_leftovers:
            sys.stderr.write(
                f"cache {cache_dir}: removed {self.num_leftovers} unfinished downloads of an earlier run\n"
            )
        self._downloads: _Downloads | None = None
        self._damaged: dict[int, str] = {}  # shards that came with other bytes than were written, and what to say

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._split, name)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_downloads": None}  # each process has a thread of its own

    def read(self, sample: int, read: ReadSpan = storage.read_bytes) -> Sample:
        """As `Split.read`: from the local shard, or by its range from the store while the shard is on its way.

        `read` is for the store; local shards are not kept open, or a deleted one would keep its room on the disk.
        """
        shard = int(self._split.index[sample]["shard"])
        if shard in self._damaged:
            raise DataError(self._damaged[shard])
        place = self._folder / shard_name(self._split.name, shard)
        if place.exists():
            try:
                found = self._local.read(sample)
                with contextlib.suppress(FileNotFoundError):
                    os.utime(place)  # used now: the last to be deleted
                return found
            except DataError:  # deleted since, or damaged; if it is so in the store too, the read below says it
                place.unlink(missing_ok=True)
        self.prefetch([shard])
        return self._split.read(sample, read)

    def prefetch(self, shards: Iterable[int]) -> None:
        """Download these shards in the background, in this order, those that are not here yet."""
        if self._downloads is None:
            self._downloads = _Downloads(self._fetch)
        for shard in shards:
            self._downloads.want(shard)

    def wait(self) -> None:
        """Return when everything wanted so far is here, or has failed."""
        if self._downloads is not None:
            self._downloads.wait()

    def _fetch(self, shard: int) -> None:
        name = shard_name(self._split.name, shard)
        place = self._folder / name
        if place.exists():
            return
        with _try_lock(self._folder / f"{name}.lock") as mine:
            if mine and not place.exists():
                data = storage.read_bytes(storage.join(self._split.uri, name))
                try:
                    prove_bytes(self._split, shard, data)
                except DataError as error:
                    self._damaged[shard] = str(error)
                    raise
                storage.put(str(place), data)
                self._make_room(place)

    def _make_room(self, newest: Path) -> None:
        files = []
        for path in [*self._root.glob("*/*.tar"), *_temporary(self._root)]:
            with contextlib.suppress(FileNotFoundError):
                files.append((path.stat().st_mtime, path.stat().st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self._limit_bytes:
                return
            if path != newest and path.suffix == ".tar":
                path.unlink(missing_ok=True)
                total -= size


class _Downloads:
    """One thread that fetches wanted shards one after another. A failure is left to the reader, who asks the store."""

    def __init__(self, fetch: Any) -> None:
        self._fetch, self._queue = fetch, queue.Queue[int]()
        self._wanted: set[int] = set()
        threading.Thread(target=self._work, daemon=True, name="shard-downloads").start()

    def want(self, shard: int) -> None:
        if shard not in self._wanted:
            self._wanted.add(shard)
            self._queue.put(shard)

    def wait(self) -> None:
        self._queue.join()

    def _work(self) -> None:
        while True:
            shard = self._queue.get()
            try:
                self._fetch(shard)
            except Exception as error:  # a full disk or a lost store must not end the thread: reads still work
                sys.stderr.write(f"cache: shard {shard} was not downloaded ({error})\n")
            finally:
                self._wanted.discard(shard)
                self._queue.task_done()


def _temporary(root: Path) -> list[Path]:
    return list(root.glob(f"*/.*.tar.*{storage.TEMPORARY_SUFFIX}"))


def _remove_leftovers(root: Path) -> int:
    """Delete temporary files that no living process is writing (it would hold the lock). Returns how many."""
    removed = 0
    for path in _temporary(root):
        name = path.name[1:].split(".tar.")[0] + ".tar"
        with _try_lock(path.with_name(f"{name}.lock")) as mine:
            if mine and path.exists():
                path.unlink(missing_ok=True)
                removed += 1
    return removed


@contextmanager
def _try_lock(path: Path) -> Iterator[bool]:
    """Whether the lock is ours now, or another process has it. It goes when its holder dies, however that dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def cached(split: Split, cache_dir: str | None, limit_gb: float) -> Split:
    """The split, read through a cache when a cache folder is given."""
    if cache_dir is None:
        return split
    return CachedSplit(split, cache_dir, limit_gb * 1e9)  # type: ignore[return-value]


def shard_ends(split: Split) -> np.ndarray:
    """int64 (num_shards,): bytes of each shard up to the end of its last sample, by the index."""
    ends = np.zeros(split.info.num_shards, np.int64)
    np.maximum.at(ends, split.index["shard"], split.index["offset"] + split.index["length"])
    return ends


def check_cache(split: Split, cache_dir: str | None, limit_gb: float, block_shards: int) -> None:
    """Raise `UsageError` when the cache cannot hold the shards that training reads at a time, twice: every sample
    would then be downloaded with its whole shard, again and again.
    """
    if cache_dir is None:
        return
    needed = np.sort(shard_ends(split))[-2 * block_shards :].sum() / 1e9
    if limit_gb < needed:
        raise UsageError(
            f"data.cache_limit_gb is {limit_gb:g}, but training reads {block_shards} shards of {split.uri} at a time "
            f"and fetches the next {block_shards} meanwhile: {needed:.3g} GB. Set data.cache_limit_gb to "
            f"{needed:.3g} or more, or leave data.cache_dir out to read samples from the store directly."
        )


def check_whole(split: Split) -> None:
    """Raise `DataError` when a shard is shorter than its index says: a cut tar must not pass for a small one.

    Costs one listing of the folder, also in a store.
    """
    sizes = storage.list_sizes(split.uri)
    for shard, end in enumerate(shard_ends(split).tolist()):
        name = shard_name(split.name, shard)
        found = sizes.get(name, -1)
        if found < end:
            raise DataError(
                f"the shard {storage.join(split.uri, name)} "
                f"{'is missing' if found < 0 else f'has {found} bytes and needs {end}'}. "
                f"`focusvit verify {split.uri} --repair` rebuilds it."
            )
