"""From a list of sample numbers to a batch: read, decode, move, mix, stack. This is all that a loader worker does."""

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pipeline.errors import DataError
from pipeline.image.image import BadImage, decode_stored
from pipeline.io import storage
from pipeline.shards.dataset import Split
from pipeline.shards.sample import Sample

from .augment import FineView, TrainViews, View, eval_view
from .batch import Batch
from .collate import collate
from .config import DataConfig
from .mixing import Mix, mix
from .open_shards import OpenShards
from .order import key_of
from .shard_cache import CachedSplit, cached

_NONE = np.empty(0, np.int64)
_REQUESTS = 8  # to a store at a time, in each loader worker


@dataclass(frozen=True)
class BatchSpec:
    """One batch to make. `epochs` is -1 at evaluation, where views are fixed and a bad sample is fatal.

    For mixing there is one sample more than `positions`: each is mixed with the next one; these key the choices.
    `ahead` names shards that will be needed soon, for a cache to fetch; `soon` are samples of a batch to come, of
    which a local disk or a mounted folder can fetch the bytes meanwhile.
    """

    sample_ids: np.ndarray
    epochs: np.ndarray
    num_tokens: int | None
    positions: np.ndarray = field(default_factory=lambda: _NONE)
    ahead: tuple[int, ...] = ()
    soon: np.ndarray = field(default_factory=lambda: _NONE)


class SampleReader:
    """Turns a `BatchSpec` into a `Batch`. Sent to every loader worker; indexing it is all that a worker does."""

    def __init__(self, split: Split, data: DataConfig, seed: int, with_maps: bool) -> None:
        self._split: Any = cached(split, data.cache_dir, data.cache_limit_gb)
        self._is_local = storage.is_local(self._split.uri)
        self._data, self._seed, self._with_maps = data, seed, with_maps
        self._views: TrainViews | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._files: OpenShards | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_views": None, "_pool": None, "_files": None}  # each process makes its own

    def __getitem__(self, spec: BatchSpec) -> Batch:
        if isinstance(self._split, CachedSplit):
            if spec.ahead:
                self._split.prefetch(spec.ahead)
        elif len(spec.soon) and self._is_local:
            self._open_shards().read_ahead(self._spans(spec.soon))
        pairs = list(zip(spec.sample_ids.tolist(), spec.epochs.tolist()))
        found = self._samples(pairs)
        # Of a training batch: views are made where they stay.
        side = self._data.image_px
        images = np.empty((len(pairs), side, side, 3), np.uint8) if spec.epochs[0] >= 0 else None
        places = [None] * len(pairs) if images is None else images
        views = [self._view(spec, *one[:2], *pair, place) for one, pair, place in zip(found, pairs, places)]
        batch = collate(
            views,
            [-1 if sample.class_id is None else int(sample.class_id) for sample, _, _ in found],
            (spec.sample_ids, spec.epochs),
            spec.num_tokens,
            images,
            [self._mix(spec, position, *views[i : i + 2]) for i, position in enumerate(spec.positions.tolist())],
        )
        return replace(batch, num_replaced=sum(replaced for _, _, replaced in found[: len(batch)]))

    def _open_shards(self) -> OpenShards:
        if self._files is None:
            self._files = OpenShards()
        return self._files

    def _spans(self, sample_ids: np.ndarray) -> list[tuple[str, int, int]]:
        """Where these samples lie, in the order of shards and places."""
        rows = self._split.index[np.sort(sample_ids)]  # samples are numbered in that order
        shards, offsets, lengths = (rows[name].tolist() for name in ("shard", "offset", "length"))
        return [(self._split.shard_uri(shard), *span) for shard, *span in zip(shards, offsets, lengths)]

    def _samples(self, pairs: list[tuple[int, int]]) -> list[tuple[Sample, np.ndarray, int]]:
        if self._is_local:
            return [self._sample(*pair) for pair in pairs]
        if self._pool is None:  # a store answers each request late and many at a time
            self._pool = ThreadPoolExecutor(_REQUESTS)
        return list(self._pool.map(lambda pair: self._sample(*pair), pairs))

    def _sample(self, sample_id: int, epoch: int) -> tuple[Sample, np.ndarray, int]:
        """A sample, its pixels, and 1 when another sample had to stand in, else 0."""
        used, read = sample_id, self._open_shards().read if self._is_local else storage.read_bytes
        for attempt in range(100):
            try:
                sample = self._split.read(used, read)
                return sample, decode_stored(sample.image), min(1, attempt)
            except BadImage as error:
                if epoch < 0:
                    raise DataError(
                        f"Sample {used} of split '{self._split.name}' does not decode ({error}), and evaluation counts "
                        "every sample. Run `focusvit verify --repair` on the data set."
                    ) from None
                used = key_of("instead", self._seed, epoch, sample_id, attempt) % self._split.num_samples
        raise DataError(f"100 samples in a row of split '{self._split.name}' do not decode. Run `focusvit verify`.")

    def _view(
        self, spec: BatchSpec, sample: Sample, rgb: np.ndarray, sample_id: int, epoch: int, out: Any
    ) -> View | FineView:
        """What is seen of a sample: as evaluation sees it, to be mixed with another one, or as it is learned from."""
        data, superpixels = self._data, sample.superpixels if self._with_maps else None
        if epoch < 0:
            sizes: dict[str, Any] = {"image_px": data.image_px, "map_px": data.map_side}
            return eval_view(rgb, superpixels, spec.num_tokens, crop_fraction=data.eval_crop_fraction, **sizes)
        if self._views is None:
            self._views = TrainViews(data)
        key = (self._seed, epoch, sample_id)
        if len(spec.positions):
            return self._views.fine(rgb, superpixels, key, out)
        return self._views(rgb, superpixels, spec.num_tokens, key, out)

    def _mix(self, spec: BatchSpec, position: int, host: Any, guest: Any) -> Mix:
        return mix(host, guest, spec.num_tokens, self._data.mix, random.Random(key_of("mix", self._seed, position)))
