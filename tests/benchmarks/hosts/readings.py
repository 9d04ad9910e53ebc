"""What a dense head reads of a frame: rows of features, and the pixels that each row stands for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from focusvit.drop_in.readout import superpixel_means
from tests.benchmarks.hosts.states import Views, outputs
from tests.benchmarks.hosts.ways import PATCH_PX, READOUT, Reads, Way, maps_of, prepared, superpixels
from transfer.dense.segmentation import region_histograms


@dataclass(frozen=True)
class Reading:
    """One frame."""

    values: Tensor
    """(R, D) features"""
    regions: np.ndarray
    """(h, w): the row of each pixel"""
    smooth: bool
    """rows are patches in raster order: scores are enlarged bilinearly, not painted"""

    def shares(self, truth: np.ndarray, num_classes: int) -> np.ndarray:
        """(R, classes): pixels of each class in each row."""
        return region_histograms(enlarged(self.regions, truth.shape), truth, len(self.values), num_classes)

    def painted(self, scores: Tensor, size: tuple[int, ...]) -> np.ndarray:
        """(h, w) at `size`: the best class of each pixel, from scores (R, classes)."""
        if not self.smooth:
            return scores.argmax(1).numpy()[enlarged(self.regions, size)]
        grid = scores.T.unflatten(1, self.regions.shape)[None]
        planes = nn.functional.interpolate(grid, size, mode="bilinear", align_corners=False)[0]
        best, found = planes[0], torch.zeros(planes.shape[1:], dtype=torch.uint8)
        for number, plane in enumerate(planes[1:], 1):  # over the first dimension `argmax` takes ten times as long
            found[plane > best] = number
            best = torch.maximum(best, plane)
        return found.numpy()


def enlarged(regions: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """The map at another size, nearest."""
    rows, columns = (np.arange(new) * old // new for new, old in zip(size, regions.shape))
    return regions[rows[:, None], columns]


def read_all(
    host: Path, model: nn.Module, way: Way, reads: Sequence[Reads], views: Views, batch: int, exact: bool = False
) -> dict[Reads, list[Reading]]:  # fmt: skip
    """Each of `reads` of every frame; the model is run once a frame."""
    prepared(model, way)
    found: dict[Reads, list[Reading]] = {name: [] for name in reads}
    with torch.inference_mode():
        for start in range(0, len(views.images), batch):
            rows = range(start, min(start + batch, len(views.images)))
            for one in read(host, model, way, reads, views, rows, exact):
                for name, reading in one.items():
                    found[name].append(reading)
    return found


def read(
    host: Path, model: Any, way: Way, reads: Sequence[Reads], views: Views, rows: Sequence[int], exact: bool = False
) -> Iterator[dict[Reads, Reading]]:  # fmt: skip
    """Each of `reads` of the frames `rows`, by the model as it was prepared; with gradients where these are on."""
    images = [views.images[row] for row in rows]
    grid = (images[0].shape[0] // PATCH_PX, images[0].shape[1] // PATCH_PX)
    own = "tokens" in reads
    if own:
        model._focusvit_patch.keep_tokens = True
    hidden = outputs(host, model, way, views, rows, exact)
    maps = maps_of(way, images, grid) if own else None
    tokens = hidden[:, 1:] if own else None
    patches = hidden[:, -grid[0] * grid[1] :]
    if tokens is not None:
        patches = model._focusvit_patch.call.levels[-1].overlap.transpose(1, 2) @ tokens
    cells = np.arange(grid[0] * grid[1]).reshape(grid)
    last = superpixels(images, grid, [READOUT])[0] if "superpixels" in reads else None
    means = None if last is None else superpixel_means(patches.transpose(1, 2).unflatten(2, grid), last, READOUT)
    for at in range(len(images)):
        one: dict[Reads, Reading] = {}
        if "patches" in reads:
            one["patches"] = Reading(_kept(patches[at]), cells, True)
        if maps is not None and tokens is not None:
            one["tokens"] = Reading(_kept(tokens[at]), maps[-1][at].numpy(), False)
        if last is not None and means is not None:
            one["superpixels"] = Reading(_kept(means[at]), last[at].numpy(), False)
        yield one


def _kept(values: Tensor) -> Tensor:
    return values if values.requires_grad else values.half()
