"""Where a model looks, on pixels, and how well that agrees with the exact mask of an object. torch and numpy only."""

from typing import Any

import numpy as np

from focusvit.model.model import FocusViT
from focusvit.predict.attention import last_read


def token_attention(model: FocusViT, seen: dict[str, Any]) -> np.ndarray:
    """(B, T): the attention that each of T tokens (superpixels, or patches of a plain ViT) gets of the class token,
    summing to 1, mean over heads: in the last attention over tokens, with latents in their last read.

    `seen` is what `forward_intermediates` gave. Raises ValueError where a model has no such reader.
    """
    if not model.num_class_tokens:
        raise ValueError(f"this model reads by '{model.config.readout}' and has no class token")
    if model.config.trunk in ("kv_pool", "gather"):
        raise ValueError(f"in trunk '{model.config.trunk}' tokens are read through latents, not one by one")
    rows = last_read(seen)
    if rows is None:
        rows = seen["attention"][-1].detach().double().mean(1).cpu().numpy()[..., model.num_class_tokens :]
    return rows[:, 0] / rows[:, 0].sum(1, keepdims=True)


def by_area(weights: np.ndarray, region_map: np.ndarray) -> np.ndarray:
    """The density of weights (T,): of each region for one of its pixels. A region without pixels keeps its weight."""
    return weights / np.maximum(np.bincount(region_map.astype(np.int64).ravel(), minlength=len(weights)), 1)


def density(weights: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Attention for each pixel, float (B, h, w), summing to 1: each region's weight (B, T) spread over its pixels.

    maps: integer (B, h, w), ids 0..T-1. A region without pixels gives nothing.
    """
    spread = np.zeros(maps.shape)
    for row, region_map, out in zip(weights, maps.astype(np.int64), spread):
        out[:] = by_area(row, region_map)[region_map]
    return spread / spread.sum((1, 2), keepdims=True)


def patch_map(grid: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """The map of a plain ViT: integer (height, width) of `size`, patch ids in raster order. Sizes are multiples."""
    y, x = (np.arange(side) * patches // side for side, patches in zip(size, grid))
    return y[:, None] * grid[1] + x


def pointing(density: np.ndarray, mask: np.ndarray) -> float:
    """Pointing game (Zhang et al. 2016) of one image: 1 when the most attended pixel lies on the object.

    A region has one density, so several pixels share the maximum: the share of them that lies on the object.
    """
    peak = density >= density.max() * (1 - 1e-9)
    return float(mask[peak].mean())


def mass_inside(density: np.ndarray, mask: np.ndarray) -> float:
    """Share of the attention that lies on the object; uniform attention gives the object's share of the image."""
    return float(density[mask].sum() / density.sum())


def overlap_at_area(density: np.ndarray, mask: np.ndarray) -> float:
    """Intersection over union of the object and as many most attended pixels as the object has.

    Pixels of the density at which the count is reached are taken in part: each by the share that still fits.
    """
    wanted = int(mask.sum())
    last = np.partition(density.ravel(), density.size - wanted)[density.size - wanted]
    above, equal = density > last, density == last
    share = (wanted - above.sum()) / equal.sum()
    shared = (mask & above).sum() + share * (mask & equal).sum()
    return float(shared / (2 * wanted - shared))


def object_share(region_map: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """float (T,): the share of each region's pixels that lies on the object; ids 0..T-1, 0 for a region without any."""
    inside = np.bincount(region_map.ravel(), weights=mask.ravel())
    return inside / np.maximum(np.bincount(region_map.ravel()), 1)


def best_regions(region_map: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The density of an observer who knows the mask: each region's share of object pixels. What regions allow."""
    return object_share(region_map, mask)[region_map]
