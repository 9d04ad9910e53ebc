"""Any number of superpixels from one sample: a fine map and its merge order, cut or fitted to exactly k regions.

`cut` serves whole images; `fit` serves the crops that a loader makes. Both return maps with exactly k ids, dense and in
raster order of first pixel, so batches need neither padding nor masks.
"""

import numpy as np

from .fit import fit_crop, fit_pixels
from .merge_order import ids_after, merge_order, renumber
from .paste import fit_two

__all__ = ["cut", "fit", "fit_pasted", "fit_warped", "merge_order"]

Crop = tuple[float, float, float, float]


def cut(fine: np.ndarray, merges: np.ndarray, k: int) -> np.ndarray:
    """The fine map with its first n - k merges made: uint8 (h, w), exactly k connected regions, 1 <= k <= n.

    Cuts are nested: the regions at k are unions of the regions at every larger k. Raises ValueError when k is out of
    range or the merge order is damaged; `fit` also gives more regions than the map has.
    """
    num_regions = len(merges) + 1
    if not 1 <= k <= num_regions:
        raise ValueError(
            f"cannot cut {num_regions} regions into {k}: choose 1 to {num_regions}, or use fit, which splits"
        )
    if int(fine.max()) >= num_regions or np.any(merges[:, 0] >= merges[:, 1]) or merges.max(initial=0) >= num_regions:
        raise ValueError("the superpixel map and its merge order do not fit each other: ids are out of range")
    ids = ids_after(merges, num_regions - k)
    if int(ids.max()) + 1 != k:
        raise ValueError("the merge order merges a region that is gone")
    return renumber(fine, ids)


def fit(fine: np.ndarray, merges: np.ndarray, crop: Crop, flip: bool, size: tuple[int, int], k: int) -> np.ndarray:
    """Exactly k regions after a crop: merged in stored order while too many are left, split when too few are.

    fine: uint8 (h, w), ids 0..n-1. merges: (n-1, 2) from `merge_order`. crop: (y0, x0, y1, x1) in [0, 1] of the whole
    image. flip: mirror left-right. size: output (height, width) in pixels; nearest sampling at pixel centres.
    Returns (height, width), uint8 when k <= 256 else int16: k non-empty regions, ids in raster order of first pixel.
    A region that is too large is halved across its longer side, largest first. Regions may be disconnected by the
    crop only. Raises ValueError when k < 1, k > height * width, the crop is empty or leaves [0, 1], or the
    merge order is damaged in a step that is made.
    """
    y0, x0, y1, x1 = crop
    if not (0 <= y0 < y1 <= 1 and 0 <= x0 < x1 <= 1):
        raise ValueError(f"crop (y0, x0, y1, x1) must satisfy 0 <= y0 < y1 <= 1 and 0 <= x0 < x1 <= 1, got {crop}")
    height, width = size
    _check(fine, merges, k, height, width)
    out = np.empty((height, width), np.uint8 if k <= 256 else np.int16)
    fit_crop(fine, merges, y0, x0, y1, x1, flip, k, out)
    return out


def fit_warped(warped: np.ndarray, merges: np.ndarray, k: int) -> np.ndarray:
    """As `fit`, for a fine map that other geometry has already moved: uint8 (h, w), ids of 0..n-1, some missing."""
    _check(warped, merges, k, *warped.shape)
    out = np.empty(warped.shape, np.uint8 if k <= 256 else np.int16)
    fit_pixels(warped, merges, k, out)
    return out


def fit_pasted(
    host: np.ndarray,
    host_merges: np.ndarray,
    guest: np.ndarray,
    guest_merges: np.ndarray,
    mask: np.ndarray,
    counts: tuple[int, int],
) -> np.ndarray:
    """As `fit_warped`, for `guest` pasted over `host` where `mask`, bool (h, w), is True: counts[0] regions of the host
    outside, counts[1] of the guest inside, none on both sides. Each part must have as many pixels as it gets regions.
    """
    inside = int(np.count_nonzero(mask))
    if not host.shape == guest.shape == mask.shape or mask.dtype != np.bool_:
        raise ValueError(f"maps {host.shape} and {guest.shape} and mask {mask.dtype} {mask.shape} must agree")
    _check(host, host_merges, counts[0], 1, mask.size - inside)
    _check(guest, guest_merges, counts[1], 1, inside)
    out = np.empty(mask.shape, np.uint8 if sum(counts) <= 256 else np.int16)
    fit_two(host, host_merges, guest, guest_merges, mask, counts, out)
    return out


def _check(fine: np.ndarray, merges: np.ndarray, k: int, height: int, width: int) -> None:
    if fine.ndim != 2 or fine.dtype != np.uint8:
        raise ValueError(f"the superpixel map must be uint8 (h, w), got {fine.dtype} {fine.shape}")
    if not 1 <= k <= min(height * width, 32767):
        raise ValueError(
            f"cannot make {k} regions of a map of {height} x {width} pixels: choose 1 to {min(height * width, 32767)}"
        )
    if merges.ndim != 2 or merges.shape[1] != 2 or merges.dtype != np.uint8 or len(merges) > 255:
        raise ValueError(f"merges must be uint8 (n-1, 2) with n <= 256, got {merges.dtype} {merges.shape}")
