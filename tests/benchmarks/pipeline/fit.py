"""What `fit` costs and what it has to split: the part of `bench superpixels` that a loader feels."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from pipeline.superpixels.hierarchy import Crop, cut, fit
from pipeline.superpixels.segment import SuperpixelConfig, Superpixels, segment_image
from tests.benchmarks.report import Table

BUDGETS = (49, 64, 100, 196, 256)
_SIZE = (224, 224)


def _crops(rng: np.random.Generator, shape: tuple[int, ...], low: float) -> Crop:
    """One random resized crop as training makes it: area in [low, 1], aspect in [3/4, 4/3]."""
    for _ in range(10):
        area, ratio = rng.uniform(low, 1) * shape[0] * shape[1], np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        height, width = (area / ratio) ** 0.5 / shape[0], (area * ratio) ** 0.5 / shape[1]
        if height <= 1 and width <= 1:
            y, x = rng.uniform(0, 1 - height), rng.uniform(0, 1 - width)
            return y, x, min(1.0, y + height), min(1.0, x + width)
    return 0.0, 0.0, 1.0, 1.0


def split_share(fine: np.ndarray, crop: Crop, k: int) -> float:
    """Share of the k tokens of `fit` that exist only because a region was split: (k - regions left) / k, at least 0."""
    rows, columns = (
        ((start + (np.arange(out) + 0.5) / out * (stop - start)) * side).astype(int)
        for (start, stop), out, side in zip(zip(crop[:2], crop[2:]), _SIZE, fine.shape)
    )
    return max(0, k - len(np.unique(fine[np.ix_(rows, columns)]))) / k


def split_table(images: Sequence[np.ndarray]) -> Table:
    """How many tokens exist only because a region had to be split, per kind of crop."""
    rng = np.random.default_rng(0)
    maps = [segment_image(image, SuperpixelConfig()).map for image in images]
    kinds: dict[str, Callable[[tuple[int, ...]], Crop]] = {
        "evaluation, centre 7/8": lambda shape: (1 / 16, 1 / 16, 15 / 16, 15 / 16),
        "random resized crop, area 0.35 to 1": lambda shape: _crops(rng, shape, 0.35),
        "random resized crop, area 0.08 to 1": lambda shape: _crops(rng, shape, 0.08),
    }
    rows = []
    for name, draw in kinds.items():
        drawn = [(fine, draw(fine.shape)) for fine in maps for _ in range(10)]
        shares = [np.mean([split_share(fine, crop, k) for fine, crop in drawn]) for k in BUDGETS]
        rows.append([name, *(f"{share:.1%}" for share in shares)])
    return Table(
        title="Share of tokens that come from splitting, 224 px output",
        columns=["crop", *(f"K = {k}" for k in BUDGETS)],
        rows=rows,
    )


def time_table(images: Sequence[np.ndarray]) -> Table:
    config = SuperpixelConfig()
    found = [segment_image(image, config) for image in images]
    rng = np.random.default_rng(0)
    crops = [_crops(rng, sample.map.shape, 0.08) for sample in found]
    steps: dict[str, Callable[[int], Any]] = {
        "segment_image (SLIC, merge order and all)": lambda i: segment_image(images[i], config),
        "cut to 64": lambda i: cut(*found[i], 64),
    }
    for k in BUDGETS:
        steps[f"fit to {k}, area 0.08 to 1, 224 px output"] = partial(_fit, found, crops, k)
    rows = [[name, *_times(step, len(images))] for name, step in steps.items()]
    return Table(title="Time, ms of CPU", columns=["step", "median", "90 %"], rows=rows)


def _times(step: Callable[[int], Any], count: int) -> tuple[str, str]:
    step(0)
    times = []
    for i in range(count):
        started = time.thread_time()
        step(i)
        times.append((time.thread_time() - started) * 1e3)
    return f"{np.median(times):.3f}", f"{np.quantile(times, 0.9):.3f}"


def _fit(found: Sequence[Superpixels], crops: Sequence[Crop], k: int, i: int) -> np.ndarray:
    return fit(*found[i], crops[i], bool(i % 2), _SIZE, k)
