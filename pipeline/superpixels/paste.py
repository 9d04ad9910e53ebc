"""The map of an image that is pasted together from two: a compiled loop behind `hierarchy.fit_pasted`."""

import numba
import numpy as np

from .fit import fit_pixels


@numba.njit(cache=True, nogil=True)
def fit_two(
    host: np.ndarray,
    host_merges: np.ndarray,
    guest: np.ndarray,
    guest_merges: np.ndarray,
    mask: np.ndarray,
    counts: tuple[int, int],
    out: np.ndarray,
) -> None:
    """Fill `out` (h, w): counts[0] regions of `host` where `mask` is False, counts[1] of `guest` where it is True.

    The pixels of each part in a row: merging needs no neighbourhood, its order is stored.
    """
    pasted = np.count_nonzero(mask)
    outer, inner = np.empty((1, mask.size - pasted), np.uint8), np.empty((1, pasted), np.uint8)
    i = j = 0
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            if mask[y, x]:
                inner[0, j] = guest[y, x]
                j += 1
            else:
                outer[0, i] = host[y, x]
                i += 1
    outer_ids, inner_ids = np.empty(outer.shape, out.dtype), np.empty(inner.shape, out.dtype)
    fit_pixels(outer, host_merges, counts[0], outer_ids)
    fit_pixels(inner, guest_merges, counts[1], inner_ids)
    new_id = np.full(counts[0] + counts[1], -1, np.int32)
    i = j = next_id = 0
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            if mask[y, x]:
                region = counts[0] + np.int64(inner_ids[0, j])
                j += 1
            else:
                region = np.int64(outer_ids[0, i])
                i += 1
            if new_id[region] < 0:
                new_id[region] = next_id
                next_id += 1
            out[y, x] = new_id[region]
