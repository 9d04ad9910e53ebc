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
from .collate import collate, collate_mixed
from .config import DataConfig
from .mixing import mix
from .order import key_of
from .shard_cache import CachedSplit, cached

_NONE = np.empty(0, np.int64)
_REQUESTS = 8  # to a store at a time, in each loader worker


@dataclass(frozen=True)
class BatchSpec:
    """One batch to make. `epochs` is -1 at evaluation, where views are fixed and a bad sample is fatal.

    For mixing there is one sample more than `size`: each is mixed with the next one; `positions` key the choices.
    `ahead` names shards that will be needed soon, for a cache to fetch.
    """

    sample_ids: np.ndarray
    epochs: np.ndarray
    num_tokens: int | None
    pad_to: int = 0
    positions: np.ndarray = field(default_factory=lambda: _NONE)
    ahead: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        return len(self.positions) or len(self.sample_ids)


class SampleReader:
    """Turns a `Task` into a `Batch`. Sent to every loader worker; indexing it is all that a worker does."""

    def __init__(self, split: Split, data: DataConfig, seed: int, with_maps: bool) -> None:
        self._split: Any = cached(split, data.cache_dir, data.cache_limit_gb)
        self._data, self._seed, self._with_maps = data, seed, with_maps
        self._views: TrainViews | None = None
        self._pool: ThreadPoolExecutor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_views": None, "_pool": None}  # each process makes its own

    def __getitem__(self, spec: BatchSpec) -> Batch:
        if spec.ahead and isinstance(self._split, CachedSplit):
            self._split.prefetch(spec.ahead)
        pairs = list(zip(spec.sample_ids.tolist(), spec.epochs.tolist()))
        if len(spec.positions):
            return self._mixed(spec, pairs)
        found = self._samples(pairs)
        views = [self._view(sample, rgb, *pair, spec.num_tokens) for (sample, rgb, _), pair in zip(found, pairs)]
        classes = [_class_of(sample) for sample, _, _ in found]
        batch = collate(views, classes, (spec.sample_ids, spec.epochs), spec.num_tokens, spec.pad_to)
        return replace(batch, num_replaced=sum(replaced for _, _, replaced in found))

    def _mixed(self, spec: BatchSpec, pairs: list[tuple[int, int]]) -> Batch:
        found = self._samples(pairs)
        fine = [self._fine(sample, rgb, *pair) for (sample, rgb, _), pair in zip(found, pairs)]
        classes = [_class_of(sample) for sample, _, _ in found]
        mixes = []
        for i, position in enumerate(spec.positions.tolist()):
            rng = random.Random(key_of("mix", self._seed, position))
            mixes.append(mix(fine[i], fine[i + 1], spec.num_tokens, self._data.mix, rng))
        batch = collate_mixed(fine, mixes, classes, (spec.sample_ids, spec.epochs), spec.num_tokens)
        return replace(batch, num_replaced=sum(replaced for _, _, replaced in found[: spec.size]))

    def _samples(self, pairs: list[tuple[int, int]]) -> list[tuple[Sample, np.ndarray, int]]:
        if storage.is_local(self._split.uri):
            return [self._sample(*pair) for pair in pairs]
        if self._pool is None:  # a store answers each request late and many at a time
            self._pool = ThreadPoolExecutor(_REQUESTS)
        return list(self._pool.map(lambda pair: self._sample(*pair), pairs))

    def _sample(self, sample_id: int, epoch: int) -> tuple[Sample, np.ndarray, int]:
        """A sample, its pixels, and 1 when another sample had to stand in, else 0."""
        used = sample_id
        for attempt in range(100):
            try:
                sample = self._split.read(used)
                return sample, decode_stored(sample.image), min(1, attempt)
            except BadImage as error:
                if epoch < 0:
                    raise DataError(
                        f"Sample {used} of split '{self._split.name}' does not decode ({error}), and evaluation counts "
                        "every sample. Run `focusvit verify --repair` on the data set."
                    ) from None
                used = key_of("instead", self._seed, epoch, sample_id, attempt) % self._split.num_samples
        raise DataError(f"100 samples in a row of split '{self._split.name}' do not decode. Run `focusvit verify`.")

    def _view(self, sample: Sample, rgb: np.ndarray, sample_id: int, epoch: int, num_tokens: int | None) -> View:
        data = self._data
        superpixels = sample.superpixels if self._with_maps else None
        if epoch >= 0:
            return self._train_views()(rgb, superpixels, num_tokens, (self._seed, epoch, sample_id))
        sizes: dict[str, Any] = {"image_px": data.image_px, "map_px": data.map_side}
        return eval_view(rgb, superpixels, num_tokens, crop_fraction=data.eval_crop_fraction, **sizes)

    def _fine(self, sample: Sample, rgb: np.ndarray, sample_id: int, epoch: int) -> FineView:
        superpixels = sample.superpixels if self._with_maps else None
        return self._train_views().fine(rgb, superpixels, (self._seed, epoch, sample_id))

    def _train_views(self) -> TrainViews:
        if self._views is None:
            self._views = TrainViews(self._data)
        return self._views


def _class_of(sample: Sample) -> int:
    return -1 if sample.class_id is None else int(sample.class_id)
