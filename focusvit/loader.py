"""Batches from shards: exact order, any number of ranks and workers, O(1) start at any sample count.

The main process decides which samples make a batch (`order`), worker processes read, decode and move them. So the
position is counted where batches are handed out, and nothing that workers have prefetched can be lost or repeated.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from pipeline.dataset import Split
from pipeline.errors import DataError, UsageError
from pipeline.image import BadImage, decode_image

from .augment import TrainViews, View, eval_view
from .batch import Batch
from .order import Order, key_of, rank_slice


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What the model sees of a sample, and how it gets there."""

    image_px: int = 224
    """side of the square image given to the model"""
    map_px: int = 0
    """side of the superpixel map given to the model; 0 = image_px. Half of image_px is enough for most models"""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """share of the image area that a random resized crop takes; (1, 1) = the whole image"""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """aspect ratio of the crop"""
    flip: float = 0.5
    """probability of mirroring left and right"""
    eval_crop_fraction: float = 0.875
    """side of the centre crop at evaluation, as a share of the short side"""
    train_split: str = "train"
    """the split to learn from"""
    eval_split: str = "val"
    """the split to score"""
    loader_workers: int = 0
    """processes that decode for each rank; 0 = in the training process"""
    prefetch: int = 4
    """batches each loader worker prepares ahead"""
    max_bad_share: float = 0.01
    """training stops when more than this share of the samples seen did not decode"""

    def __post_init__(self) -> None:
        if self.image_px < 8:
            raise ValueError(f"data.image_px must be at least 8, not {self.image_px}")
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(f"data.crop_scale must satisfy 0 < low <= high <= 1, not {self.crop_scale}")
        if not 0 < self.eval_crop_fraction <= 1:
            raise ValueError(f"data.eval_crop_fraction must be in (0, 1], not {self.eval_crop_fraction}")
        if self.loader_workers < 0 or self.prefetch < 1:
            raise ValueError("data.loader_workers must not be negative and data.prefetch must be at least 1")

    @property
    def map_side(self) -> int:
        return self.map_px or self.image_px


@dataclass(frozen=True)
class Task:
    """One batch to make: which samples, in which epoch each (-1 at evaluation), and how many tokens per image."""

    sample_ids: np.ndarray
    epochs: np.ndarray
    num_tokens: int | None
    pad_to: int = 0


class SampleReader:
    """Turns a `Task` into a `Batch`. Sent to every loader worker; indexing it is all that a worker does."""

    def __init__(self, split: Split, data: DataConfig, seed: int, with_maps: bool) -> None:
        self._split, self._data, self._seed, self._with_maps = split, data, seed, with_maps
        self._views: TrainViews | None = None

    def __getitem__(self, task: Task) -> Batch:
        views, classes, num_replaced = [], [], 0
        for sample_id, epoch in zip(task.sample_ids.tolist(), task.epochs.tolist()):
            view, class_id, replaced = self._view(sample_id, epoch, task.num_tokens)
            views.append(view)
            classes.append(class_id)
            num_replaced += replaced
        return _collate(views, classes, task, num_replaced)

    def _view(self, sample_id: int, epoch: int, num_tokens: int | None) -> tuple[View, int, int]:
        """The view, its class, and 1 when another sample had to stand in, else 0. At evaluation a bad sample is fatal."""
        used = sample_id
        for attempt in range(100):
            try:
                return *self._read(used, sample_id, epoch, num_tokens), min(1, attempt)
            except BadImage as error:
                if epoch < 0:
                    raise DataError(
                        f"Sample {used} of split '{self._split.name}' does not decode ({error}), and evaluation counts "
                        "every sample. Run `focusvit verify --repair` on the data set."
                    ) from None
                used = key_of("instead", self._seed, epoch, sample_id, attempt) % self._split.num_samples
        raise DataError(f"100 samples in a row of split '{self._split.name}' do not decode. Run `focusvit verify`.")

    def _read(self, used: int, sample_id: int, epoch: int, num_tokens: int | None) -> tuple[View, int]:
        data = self._data
        sample = self._split.read(used)
        rgb = decode_image(sample.image)
        superpixels = sample.superpixels if self._with_maps else None
        class_id = -1 if sample.class_id is None else int(sample.class_id)
        if epoch < 0:
            sizes: dict[str, Any] = {"image_px": data.image_px, "map_px": data.map_side}
            return eval_view(rgb, superpixels, num_tokens, crop_fraction=data.eval_crop_fraction, **sizes), class_id
        if self._views is None:
            self._views = train_views(data)
        return self._views(rgb, superpixels, num_tokens, (self._seed, epoch, sample_id)), class_id


def train_views(data: DataConfig) -> TrainViews:
    """The random views that `data` asks for."""
    return TrainViews(
        image_px=data.image_px,
        map_px=data.map_side,
        crop_scale=data.crop_scale,
        crop_ratio=data.crop_ratio,
        flip=data.flip,
    )


def _collate(views: list[View], classes: list[int], task: Task, num_replaced: int) -> Batch:
    size = len(views)
    pad = max(0, task.pad_to - size)
    images = np.stack([view.image for view in views] + [views[-1].image] * pad)
    maps = None
    if views[0].map is not None:
        maps = torch.from_numpy(np.stack([view.map for view in views] + [views[-1].map] * pad))
    return Batch(
        images=torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
        maps=maps,
        num_tokens=task.num_tokens if maps is not None else None,
        class_ids=torch.tensor(classes + [-1] * pad, dtype=torch.int64),
        sample_ids=torch.from_numpy(np.concatenate([task.sample_ids, np.full(pad, -1)])).long(),
        valid=torch.arange(size + pad) < size,
        num_replaced=num_replaced,
    )


class TrainLoader:
    """Iterate to get this rank's slice of each global batch, from `samples_seen` on."""

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
        self._slice = rank_slice(global_batch, rank, world_size)
        self._tokens = tokens if with_maps else None
        self._reader = SampleReader(split, data, seed, with_maps and tokens is not None)
        self._data, self._pin, self._identity, self._seed = data, pin_memory, split.identity, seed

    def _tasks(self) -> Iterator[Task]:
        start = self.samples_seen
        while self.total_samples is None or start < self.total_samples:
            first, last = start + self._slice[0], start + self._slice[1]
            epochs = np.arange(first, last) // self._order.num_samples
            yield Task(self._order.sample_ids(first, last), epochs, self._tokens)
            start += self.global_batch

    def __iter__(self) -> Iterator[Batch]:
        for batch in _loader(self._reader, self._tasks(), self._data, self._pin):
            self.samples_seen += self.global_batch
            yield batch

    def peek(self) -> Batch:
        """The next batch, made in this process; the position stays."""
        return self._reader[next(self._tasks())]

    def state_dict(self) -> dict[str, Any]:
        """The position and what it is a position in. Prefetched batches do not count as seen."""
        return {"samples_seen": self.samples_seen, "seed": self._seed, "identity": self._identity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved position, for the next `iter`. `UsageError` when it belongs to another data set or seed."""
        for name, here in (("identity", self._identity), ("seed", self._seed)):
            if state[name] != here:
                raise UsageError(
                    f"The saved position is in the order of {name} {state[name]!r}, this loader has {here!r}. "
                    "Resume with the same data set and seed, or start a new run."
                )
        self.samples_seen = int(state["samples_seen"])


def train_loader(split: Split, data: DataConfig, **options: Any) -> TrainLoader:
    """A `TrainLoader`: options are seed, global_batch, rank, world_size, start_samples, total_samples, tokens, with_maps."""
    return TrainLoader(split, data, **options)


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
        pad: bool = False,
        pin_memory: bool = False,
    ) -> None:
        self.num_samples, self.num_classes = split.num_samples, split.num_classes
        start, stop = rank_slice(split.num_samples, rank, world_size)
        shown = tokens if with_maps else None
        self._tasks = [
            Task(
                np.arange(first, min(first + batch_size, stop)),
                np.full(min(batch_size, stop - first), -1),
                shown,
                batch_size if pad else 0,
            )
            for first in range(start, stop, batch_size)
        ]
        reader = SampleReader(split, data, 0, with_maps and tokens is not None)
        self._loader = _loader(reader, self._tasks, data, pin_memory)

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._loader)


def eval_loader(split: Split, data: DataConfig, **options: Any) -> EvalLoader:
    """An `EvalLoader`: options are batch_size, rank, world_size, tokens, with_maps, pad."""
    return EvalLoader(split, data, **options)


def _loader(reader: SampleReader, tasks: Iterable[Task], data: DataConfig, pin_memory: bool) -> Iterable[Batch]:
    """torch's DataLoader over whole batches; workers start from a clean server process, never by forking threads."""
    cv2.setNumThreads(0)
    many: dict[str, Any] = {}
    if data.loader_workers:
        method: Literal["forkserver"] = "forkserver"
        many = {"multiprocessing_context": method, "prefetch_factor": data.prefetch, "persistent_workers": True}
    return DataLoader(
        reader,  # type: ignore[arg-type]
        batch_size=None,
        sampler=tasks,
        num_workers=data.loader_workers,
        pin_memory=pin_memory,
        **many,
    )
