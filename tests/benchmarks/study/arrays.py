"""Images and maps held as uint8 arrays, in memory or on the GPU: for small data sets and studies. torch and numpy only.

Batches have the order of the shard loader (`order`), and the same promises: any number of ranks, any start. Images are
mirrored and shifted, keyed by (seed, epoch, sample).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from focusvit.data.batch import Batch
from focusvit.data.order import Order, key_of, rank_slice

_STEPS, _FURTHEST = 32, 4
"""a shift goes by whole 32nds of a side, up to an eighth: whole pixels for images and maps of 32, 64, ... px"""


@dataclass(frozen=True, kw_only=True)
class ArrayData:
    """N samples: images uint8 (N, 3, H, W), maps (N, Hm, Wm) with `num_tokens` regions each or None, class_ids (N,)."""

    images: Tensor
    maps: Tensor | None
    num_tokens: int | None
    class_ids: Tensor
    identity: str

    def __len__(self) -> int:
        return self.images.shape[0]

    def to(self, device: torch.device | str) -> "ArrayData":
        maps = None if self.maps is None else self.maps.to(device)
        return ArrayData(
            images=self.images.to(device),
            maps=maps,
            num_tokens=self.num_tokens,
            class_ids=self.class_ids.to(device),
            identity=self.identity,
        )


def collect(batches: Iterable[Batch], identity: str) -> ArrayData:
    """The samples of an evaluation loader, in the order of the split. Raises ValueError for a map that does not fit."""
    parts = [batch.check() for batch in batches]
    order = torch.argsort(torch.cat([part.sample_ids for part in parts]))
    maps = [part.maps for part in parts if part.maps is not None]
    return ArrayData(
        images=torch.cat([part.images for part in parts])[order],
        maps=torch.cat(maps)[order] if maps else None,
        num_tokens=parts[0].num_tokens,
        class_ids=torch.cat([part.class_ids for part in parts])[order],
        identity=identity,
    )


class ArrayTrainLoader:
    """Iterate to get this rank's slice of each global batch, on the device of the arrays."""

    def __init__(
        self,
        data: ArrayData,
        *,
        seed: int,
        global_batch: int,
        rank: int = 0,
        world_size: int = 1,
        start_samples: int = 0,
        total_samples: int | None = None,
        flip: float = 0.5,
        shifts: bool = False,
    ) -> None:
        """`shifts`: move each image by up to an eighth of its sides, its own mirror image filling what is left free."""
        if global_batch < world_size:
            raise ValueError(f"a global batch of {global_batch} gives some of {world_size} workers no sample")
        self._data, self._seed, self._flip, self._shifts = data, seed, flip, shifts
        self._order = Order(np.array([len(data)]), seed, data.identity)
        self._slice = rank_slice(global_batch, rank, world_size)
        self.samples_seen, self.total_samples, self.global_batch = start_samples, total_samples, global_batch

    def __iter__(self) -> Iterator[Batch]:
        while self.total_samples is None or self.samples_seen < self.total_samples:
            batch = self.peek()
            self.samples_seen += self.global_batch
            yield batch

    def peek(self) -> Batch:
        """The next batch; the position stays."""
        first, last = (self.samples_seen + part for part in self._slice)
        ids = self._order.sample_ids(first, last)
        epochs = np.arange(first, last) // len(self._data)
        mirrored = [
            key_of("flip", self._seed, epoch, sample) / 2**63 < self._flip
            for epoch, sample in zip(epochs.tolist(), ids.tolist())
        ]
        batch = _take(self._data, ids, np.array(mirrored, bool))
        if not self._shifts:
            return batch
        draws = [
            [key_of(f"shift {axis}", self._seed, epoch, sample) % (2 * _FURTHEST + 1) - _FURTHEST for axis in "yx"]
            for epoch, sample in zip(epochs.tolist(), ids.tolist())
        ]
        return shifted(batch, torch.tensor(draws, device=batch.images.device))


class ArrayEvalLoader:
    """Iterate over this rank's range, each sample once."""

    def __init__(
        self, data: ArrayData, *, batch_size: int, num_classes: int | None = None, rank: int = 0, world_size: int = 1
    ) -> None:
        """`num_classes`: by default as many as the samples show."""
        self._data, self._batch_size = data, batch_size
        self._start, self._stop = rank_slice(len(data), rank, world_size)
        self.num_samples, self.num_classes = len(data), num_classes or int(data.class_ids.max()) + 1

    def __len__(self) -> int:
        return -(-(self._stop - self._start) // self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for first in range(self._start, self._stop, self._batch_size):
            ids = np.arange(first, min(first + self._batch_size, self._stop))
            yield _take(self._data, ids, np.zeros(len(ids), bool))


def shifted(batch: Batch, steps: Tensor) -> Batch:
    """Images and maps moved by `steps` (B, 2: down, right) 32nds of their sides, reflected at the borders.

    A sample that would lose a region stays where it is: every map keeps its exact number of regions.
    """
    maps = None
    if batch.maps is not None:
        maps = _moved(batch.maps[:, None], steps)[:, 0]
        ids = maps.flatten(1).long()
        present = ids.new_zeros(len(ids), batch.num_tokens or 0).scatter_(1, ids, 1).all(1)
        steps = torch.where(present[:, None], steps, 0)
        maps = torch.where(present[:, None, None], maps, batch.maps)
    return replace(batch, images=_moved(batch.images, steps), maps=maps)


def _moved(pixels: Tensor, steps: Tensor) -> Tensor:
    """(B, C, H, W) with pixel y, x taken from y - down, x - right, reflected into the image."""
    for dim, step in zip((2, 3), steps.unbind(1)):
        side = pixels.shape[dim]
        at = torch.arange(side, device=pixels.device) - torch.round(step[:, None] * side / _STEPS).long()
        at = side - 1 - (side - 1 - at.abs()).abs()
        at = at[:, None, :, None] if dim == 2 else at[:, None, None, :]
        pixels = pixels.gather(dim, at.expand(pixels.shape))
    return pixels


def _take(data: ArrayData, ids: np.ndarray, mirrored: np.ndarray) -> Batch:
    device = data.images.device
    at = torch.from_numpy(ids).to(device)
    flip = torch.from_numpy(mirrored).to(device)
    images = data.images[at]
    images = torch.where(flip[:, None, None, None], images.flip(-1), images)
    maps = None
    if data.maps is not None:
        maps = data.maps[at]
        maps = torch.where(flip[:, None, None], maps.flip(-1), maps)
    return Batch(
        images=images,
        maps=maps,
        num_tokens=data.num_tokens,
        class_ids=data.class_ids[at],
        sample_ids=at,
    )
