"""Batches from shards: exact order, any number of ranks and workers, O(1) start at any sample count.

The main process decides which samples make a batch (`order`), worker processes read, decode and move them. So the
position is counted where batches are handed out, and nothing that workers have prefetched can be lost or repeated.
"""

import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from torch.utils.data import DataLoader

from pipeline.errors import DataError, UsageError
from pipeline.io import storage
from pipeline.shards.dataset import Split
from pipeline.shards.proof import prove_shard

from .batch import Batch
from .config import DataConfig
from .order import Order, key_of, rank_slice
from .reader import BatchSpec, SampleReader
from .shard_cache import check_cache

# What a loader worker needs, loaded once in the server that all of them are forked from: seconds for each of them.
_PRELOAD = ["focusvit.data.reader", "albumentations"]

__all__ = ["DataConfig", "EvalLoader", "TrainLoader"]


class TrainLoader:
    """Iterate to get this rank's slice of each global batch, from `samples_seen` on. Call `finished()` on a batch once
    it is on its device: colours, erasing and mixing are done there.
    """

    def __init__(
        self,
        split: Split,
        data: DataConfig,
        *,
        seed: int,
        global_batch: int,
        rank: int,
        world_size: int,
        start_samples: int = 0,
        total_samples: int | None = None,
        tokens: int | None = None,
        token_budgets: tuple[int, ...] = (),
        with_maps: bool = True,
        pin_memory: bool = False,
    ) -> None:
        if global_batch < world_size:
            raise UsageError(
                f"A global batch of {global_batch} gives some of {world_size} workers no sample. "
                "Use fewer --workers or a larger global_batch."
            )
        self.samples_seen, self.total_samples, self.global_batch = start_samples, total_samples, global_batch
        self._order = Order(split.shard_sizes, seed, split.identity)
        check_cache(split, data.cache_dir, data.cache_limit_gb, self._order.block_shards)
        self._fetches_ahead = data.cache_dir is not None
        self._slice = rank_slice(global_batch, rank, world_size)
        self._tokens = tokens if with_maps else None
        self._budgets = token_budgets if with_maps else ()
        self._reader = SampleReader(split, data, seed, with_maps and tokens is not None)
        self._split = split
        self._data, self._pin, self._seed = data, pin_memory, seed

    def _specs(self) -> Iterator[BatchSpec]:
        start = self.samples_seen
        fetched: list[int] = []
        while self.total_samples is None or start < self.total_samples:
            spec = self._spec(start)
            if self._fetches_ahead:  # said once a block, to the worker that happens to get its first batch
                ahead = self._order.shards_from(start, blocks=2)
                spec, fetched = replace(spec, ahead=() if ahead == fetched else tuple(ahead)), ahead
            yield spec
            start += self.global_batch

    def _spec(self, start: int) -> BatchSpec:
        """This rank's part of the global batch that begins at position `start`."""
        positions = np.arange(start + self._slice[0], start + self._slice[1])
        ids = self._order.sample_ids(int(positions[0]), int(positions[-1]) + 1)
        needed = positions
        if self._data.mix.on:  # the partner of a sample is the next one of the global batch, of the last one the first
            after = int(positions[-1]) + 1
            partner = after if after < start + self.global_batch else start
            ids = np.concatenate([ids, self._order.sample_ids(partner, partner + 1)])
            needed = np.append(positions, partner)
        epochs = needed // self._order.num_samples
        if self._data.views:
            epochs = epochs % self._data.views
        mixed = positions if self._data.mix.on else np.empty(0, np.int64)
        return BatchSpec(ids, epochs, self._tokens_at(start), positions=mixed)

    def _tokens_at(self, start: int) -> int | None:
        """The token budget of the global batch that begins at `start`: the same on every rank."""
        if not self._budgets:
            return self._tokens
        return self._budgets[key_of("tokens", self._seed, start) % len(self._budgets)]

    def __iter__(self) -> Iterator[Batch]:
        specs = _with_the_next(self._specs(), max(1, self._data.loader_workers))
        batches = batches_of(self._reader, specs, self._data, self._pin)
        check = self._data.check_shards
        cached = self._data.cache_dir is not None  # which proves each shard that it fetches
        if check == "all" or (check == "local" and not cached and storage.is_local(self._split.uri)):
            batches = _proven(self._split, batches)
        for batch in batches:
            self.samples_seen += self.global_batch
            yield batch

    def peek(self) -> Batch:
        """The next batch, made and finished in this process; the position stays."""
        return self._reader[next(self._specs())].finished()


class EvalLoader:
    """Iterate, any number of times, over this rank's range of the split: each sample exactly once over all ranks."""

    def __init__(
        self,
        split: Split,
        data: DataConfig,
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        tokens: int | None = None,
        with_maps: bool = True,
        pin_memory: bool = False,
    ) -> None:
        self.num_samples, self.num_classes, self._split = split.num_samples, split.num_classes, split
        start, stop = rank_slice(split.num_samples, rank, world_size)
        shown = tokens if with_maps else None
        self._specs = [
            BatchSpec(
                np.arange(first, min(first + batch_size, stop)), np.full(min(batch_size, stop - first), -1), shown
            )
            for first in range(start, stop, batch_size)
        ]
        reader = SampleReader(split, data, 0, with_maps and tokens is not None)
        self._loader = _loader(reader, self._specs, data, pin_memory)

    def __len__(self) -> int:
        return len(self._specs)

    def __iter__(self) -> Iterator[Batch]:
        return _proven(self._split, _watched(self._loader))  # scores count no damaged sample


def _proven(split: Split, batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches, each after the shards of its samples were proven: here, once, and not again in every worker."""
    for batch in batches:
        ids = batch.sample_ids.numpy()
        for shard in np.unique(split.index["shard"][ids]).tolist():
            prove_shard(split, shard)
        yield batch


def _with_the_next(specs: Iterable[BatchSpec], distance: int) -> Iterator[BatchSpec]:
    """The same specs; each names the samples of the one `distance` later, which the same loader worker makes next."""
    waiting = deque[BatchSpec]()
    for spec in specs:
        waiting.append(spec)
        if len(waiting) > distance:
            yield replace(waiting.popleft(), soon=spec.sample_ids)
    yield from waiting


def batches_of(
    reader: SampleReader, specs: Iterable[BatchSpec], data: DataConfig, pin_memory: bool = False
) -> Iterator[Batch]:
    """The batches of `tasks`, made by `data.loader_workers` processes."""
    return _watched(_loader(reader, specs, data, pin_memory))


def _watched(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The same batches; `DataError` in words when a loader worker dies, and what workers raise without their trace."""
    try:
        yield from batches
    except (DataError, UsageError) as error:  # torch puts the worker's trace before the words
        raise type(error)(str(error).rpartition(f"{type(error).__name__}: ")[2].strip()) from None
    except (RuntimeError, ConnectionError, EOFError) as error:
        worker_died = not isinstance(error, RuntimeError) or "DataLoader worker" in str(error)
        if not worker_died or str(error).startswith("Caught "):  # a bug, here or in a living worker
            raise
        raise DataError(
            f"A loader worker died ({error}). Most often memory was full: use fewer data.loader_workers or a smaller "
            "data.prefetch, then start again, the run goes on from its last checkpoint."
        ) from error


def _loader(reader: SampleReader, specs: Iterable[BatchSpec], data: DataConfig, pin_memory: bool) -> Iterable[Batch]:
    """torch's DataLoader over whole batches; workers start from a clean server process, never by forking threads."""
    cv2.setNumThreads(0)
    many: dict[str, Any] = {}
    if data.loader_workers:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOAD)
        # Processes end with their pass over the batches: those of a scoring do not idle until the next one.
        many = {"multiprocessing_context": context, "prefetch_factor": data.prefetch}
    return DataLoader(
        reader,  # type: ignore[arg-type]
        batch_size=None,
        sampler=specs,
        num_workers=data.loader_workers,
        pin_memory=pin_memory,
        **many,
    )
