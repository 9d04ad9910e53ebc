"""From an image to its superpixels: a fine SLIC map and the order in which its regions merge."""

from typing import Any, NamedTuple

import cv2
import numpy as np

from pipeline.image.depth import is_dark

from .config import SuperpixelConfig
from .connected import connected_regions
from .merge_order import ids_after, merge_order, renumber
from .slic import slic

LIGHT = SuperpixelConfig(fine_regions=128, seed_regions=160, pixels_per_region=32, iterations=5)
"""For images of 32 to 64 px, beside whose models the default costs much: they are not enlarged, two fifths of the time
(`python -m tests.benchmarks superpixels`)."""


class Superpixels(NamedTuple):
    """The superpixels of one image, in its segmentation's own size (same shape as the image up to rounding)."""

    map: np.ndarray
    """uint8 (h, w): fine ids 0..n-1 in raster order of first pixel; each id is one 4-connected region."""
    merges: np.ndarray
    """uint8 (n-1, 2): step t merges region b into a, a < b; the survivor keeps the smaller id."""


def segment_image(rgb: np.ndarray, config: SuperpixelConfig) -> Superpixels:
    """Superpixels of `rgb`, uint8 (H, W, 3), H, W >= 1, or a PIL image. Deterministic; safe to call from threads."""
    rgb = as_rgb(rgb)
    small = scale_for_segmentation(rgb, config)
    regions = connected_regions(slic(small, config.seed_regions, config.compactness, config.iterations))
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB)
    merges = merge_order(regions, lab, config.spatial_weight, regions_px=regions.size / config.fine_regions)
    return _keep(regions, merges, config.fine_regions)


def as_rgb(image: Any) -> np.ndarray:
    """uint8 (H, W, 3) of such an array, or of a PIL image. Raises ValueError for anything else."""
    if hasattr(image, "convert") and hasattr(image, "getbands"):  # PIL's, which need not be loaded to know
        image = _of_pil(image)
    if not isinstance(image, np.ndarray):
        raise ValueError(f"an image must be an array uint8 (H, W, 3) or a PIL image, not {type(image).__name__}")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"an image must be uint8 (H, W, 3) with at least one pixel, got {image.dtype} {image.shape}")
    return image


def _of_pil(image: Any) -> np.ndarray:
    """PIL itself cuts values above 255 off, which makes a photo of 16 bits white: here as a file of it is read."""
    if image.mode in ("I", "F"):
        raise ValueError(f"a PIL image of mode {image.mode} does not say which value is white: give floats in [0, 1]")
    if not image.mode.startswith("I;16"):
        return np.asarray(image.convert("RGB"))
    gray = (np.asarray(image) >> 8).astype(np.uint8)
    if is_dark(gray, inverted=False):
        raise ValueError("a PIL image of 16 bits with values of at most 14 would come out dark: give floats in [0, 1]")
    return np.repeat(gray[..., None], 3, 2)


def scale_for_segmentation(rgb: np.ndarray, config: SuperpixelConfig) -> np.ndarray:
    """`rgb` reduced or enlarged by a whole factor to about fine_regions * pixels_per_region pixels.

    Means over whole pixels are exact, 20 times faster than other area resizing, and keep map and image aligned.
    """
    height, width = rgb.shape[:2]
    target = config.fine_regions * config.pixels_per_region
    scale = (target / (height * width)) ** 0.5
    if scale >= 1:
        factor = round(scale)
        # A line, one pixel high, must not grow without bound.
        size = (min(width * factor, max(width, target)), min(height * factor, max(height, target)))
        return rgb if factor == 1 else cv2.resize(rgb, size, interpolation=cv2.INTER_CUBIC)
    factor = round(1 / scale)
    if factor == 1:
        return rgb
    if min(height, width) < factor:
        size = (max(1, width // factor), max(1, height // factor))
        return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    return cv2.resize(rgb, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)


def _keep(regions: np.ndarray, merges: np.ndarray, limit: int) -> Superpixels:
    """At most `limit` regions: the first merges are made now, the others are stored."""
    extra = max(0, len(merges) + 1 - limit)
    ids = ids_after(merges, extra)
    return Superpixels(renumber(regions, ids), ids[merges[extra:]])
