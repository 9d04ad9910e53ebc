"""From an image to its superpixels: a fine SLIC map and the order in which its regions merge."""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from .connected import connected_regions
from .hierarchy import cut
from .merge_order import merge_order
from .slic import MIN_PIXELS_PER_REGION, slic


@dataclass(frozen=True, kw_only=True)
class SuperpixelConfig:
    """Everything that changes the superpixels of an image. Part of the fingerprint of a data set."""

    fine_regions: int = 256
    """Most regions of a stored map; every token budget is cut from them. At most 256, so that ids fit a byte."""
    pixels_per_region: int = 85
    """Pixels of the segmentation per fine region: images are scaled to fine_regions * pixels_per_region pixels."""
    compactness: float = 10.0
    """SLIC's weight of position against colour; larger gives rounder regions."""
    iterations: int = 10
    """Rounds of SLIC."""
    spatial_weight: float = 12.0
    """Weight of position in the merge order: one region spacing counts as this many levels of 8-bit Lab."""

    def __post_init__(self) -> None:
        if not 1 <= self.fine_regions <= 256:
            raise ValueError(f"fine_regions is {self.fine_regions}; choose 1 to 256 (ids are stored as bytes)")
        if not MIN_PIXELS_PER_REGION <= self.pixels_per_region <= 4096:
            raise ValueError(f"pixels_per_region is {self.pixels_per_region}; choose {MIN_PIXELS_PER_REGION} to 4096")
        if not 0 < self.compactness <= 1000:
            raise ValueError(f"compactness is {self.compactness}; choose more than 0 and at most 1000")
        if not 1 <= self.iterations <= 100:
            raise ValueError(f"iterations is {self.iterations}; choose 1 to 100")
        if not 0 <= self.spatial_weight <= 10000:
            raise ValueError(f"spatial_weight is {self.spatial_weight}; choose 0 to 10000")


class Superpixels(NamedTuple):
    """The superpixels of one image, in its segmentation's own size (same shape as the image up to rounding)."""

    map: np.ndarray
    """uint8 (h, w): fine ids 0..n-1 in raster order of first pixel; each id is one 4-connected region."""
    merges: np.ndarray
    """uint8 (n-1, 2): step t merges region b into a, a < b; the survivor keeps the smaller id."""


def segment_image(rgb: np.ndarray, config: SuperpixelConfig) -> Superpixels:
    """Superpixels of `rgb`, uint8 (H, W, 3), H, W >= 1. Deterministic; safe to call from several threads."""
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or rgb.size == 0:
        raise ValueError(f"an image must be uint8 (H, W, 3) with at least one pixel, got {rgb.dtype} {rgb.shape}")
    lab = cv2.cvtColor(scale_for_segmentation(rgb, config), cv2.COLOR_RGB2LAB)
    regions = connected_regions(slic(lab, config.fine_regions, config.compactness, config.iterations))
    merges = merge_order(regions, lab, config.spatial_weight)
    return _keep(regions, merges, config.fine_regions)


def scale_for_segmentation(rgb: np.ndarray, config: SuperpixelConfig) -> np.ndarray:
    """`rgb` at fine_regions * pixels_per_region pixels, enlarged or reduced, shape kept up to rounding."""
    height, width = rgb.shape[:2]
    target = config.fine_regions * config.pixels_per_region
    scale = (target / (height * width)) ** 0.5
    # The bound matters for lines: a side cannot be less than one pixel, so the other must not grow with it.
    size = (min(max(1, round(width * scale)), target), min(max(1, round(height * scale)), target))
    if size == (width, height):
        return rgb
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def _keep(regions: np.ndarray, merges: np.ndarray, limit: int) -> Superpixels:
    """At most `limit` regions: the first merges are made now, the others are stored."""
    extra = max(0, len(merges) + 1 - limit)
    root = np.arange(len(merges) + 1)
    for a, b in merges[:extra][::-1]:
        root[b] = root[a]
    ids = (np.cumsum(root == np.arange(len(root))) - 1).astype(np.uint8)
    return Superpixels(ids[root][regions], ids[merges[extra:]])
