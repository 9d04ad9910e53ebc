"""The order in which the regions of a fine superpixel map merge, from all of them down to one.

At each step the two 4-neighbouring regions merge whose union adds least to the total squared error (Ward's cost):
`|A| |B| / (|A| + |B|) * |mean_A - mean_B|^2` over (L, a, b, w*y, w*x). The position term keeps regions compact; without
it, cuts lose in achievable segmentation accuracy against direct SLIC (measured on BSDS500, `focusvit bench superpixels`).
Sums are integers and every cost is computed from them in one fixed order, so the result is the same on every CPU.
"""

import numba
import numpy as np

_INFINITE = np.inf


def merge_order(fine: np.ndarray, lab: np.ndarray, spatial_weight: float) -> np.ndarray:
    """Merges of a fine map, cheapest first.

    fine: integer (h, w), ids 0..n-1, each id one 4-connected region. lab: uint8 (h, w, 3), OpenCV's 8-bit Lab.
    spatial_weight: weight of a distance of one region spacing, sqrt(h*w/n) pixels, against one level of Lab.
    Returns (n-1, 2), uint8 when n <= 256 else int32: row t = (a, b) merges region b into a, a < b; both are survivors
    of the rows before, and the survivor keeps the id a. Time: 0.3 ms for 256 regions on a 150 x 150 map.
    """
    if lab.shape != (*fine.shape, 3) or lab.dtype != np.uint8:
        raise ValueError(f"lab must be uint8 {(*fine.shape, 3)}, like the map, got {lab.dtype} {lab.shape}")
    num_regions = int(fine.max()) + 1
    counts, sums, near = _region_sums(fine, lab, num_regions)
    if num_regions > 1 and counts.min() == 0:
        raise ValueError(f"ids must be dense 0..{num_regions - 1}; id {int(counts.argmin())} has no pixel")
    scale = np.array([1.0, 1.0, 1.0, 0.0, 0.0])
    scale[3:] = spatial_weight**2 * num_regions / fine.size
    merges = _merge(counts, sums, near, scale)
    return merges.astype(np.uint8) if num_regions <= 256 else merges


@numba.njit(cache=True, nogil=True)
def _region_sums(fine: np.ndarray, lab: np.ndarray, num_regions: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels per region (n,), sums of (L, a, b, y, x) per region (n, 5), and which regions touch (n, n)."""
    height, width = fine.shape
    counts = np.zeros(num_regions, np.int64)
    sums = np.zeros((num_regions, 5), np.int64)
    near = np.zeros((num_regions, num_regions), np.bool_)
    for y in range(height):
        x = 0
        while x < width:  # one run of equal ids at a time
            region = fine[y, x]
            start = x
            lightness, a, b = 0, 0, 0
            while x < width and fine[y, x] == region:
                lightness += lab[y, x, 0]
                a += lab[y, x, 1]
                b += lab[y, x, 2]
                if y > 0 and fine[y - 1, x] != region:
                    near[region, fine[y - 1, x]] = True
                    near[fine[y - 1, x], region] = True
                x += 1
            run = x - start
            counts[region] += run
            sums[region, 0] += lightness
            sums[region, 1] += a
            sums[region, 2] += b
            sums[region, 3] += run * y
            sums[region, 4] += run * (start + x - 1) // 2
            if x < width:
                near[region, fine[y, x]] = True
                near[fine[y, x], region] = True
    return counts, sums, near


@numba.njit(cache=True, nogil=True)
def _ward(a: int, b: int, counts: np.ndarray, sums: np.ndarray, scale: np.ndarray) -> float:
    """Increase of the total squared error when a and b become one."""
    distance = 0.0
    for f in range(sums.shape[1]):
        difference = sums[a, f] / counts[a] - sums[b, f] / counts[b]
        distance += scale[f] * difference * difference
    return distance * (counts[a] * counts[b]) / (counts[a] + counts[b])


@numba.njit(cache=True, nogil=True)
def _cheapest(a: int, counts: np.ndarray, sums: np.ndarray, near: np.ndarray, scale: np.ndarray) -> tuple[int, float]:
    """The neighbour that is cheapest to merge with a (the smallest id among equals), and its cost."""
    best, best_cost = -1, _INFINITE
    for b in range(near.shape[0]):
        if near[a, b]:
            cost = _ward(min(a, b), max(a, b), counts, sums, scale)
            if cost < best_cost:
                best, best_cost = b, cost
    return best, best_cost


@numba.njit(cache=True, nogil=True)
def _merge(counts: np.ndarray, sums: np.ndarray, near: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Every region remembers its cheapest neighbour, so a step looks at n numbers and repairs a few of them."""
    n = counts.shape[0]
    merges = np.zeros((n - 1, 2), np.int32)
    partner = np.full(n, -1, np.int64)
    cost = np.full(n, _INFINITE)
    for region in range(n):
        partner[region], cost[region] = _cheapest(region, counts, sums, near, scale)
    for step in range(n - 1):
        first = 0
        for region in range(1, n):  # the smallest id among equal costs
            if cost[region] < cost[first]:
                first = region
        a, b = min(first, partner[first]), max(first, partner[first])
        merges[step, 0], merges[step, 1] = a, b
        counts[a] += counts[b]
        for f in range(sums.shape[1]):
            sums[a, f] += sums[b, f]
        cost[b] = _INFINITE
        for c in range(n):
            if near[b, c]:
                near[c, b] = False
                near[b, c] = False
                if c != a:
                    near[a, c] = True
                    near[c, a] = True
        for c in range(n):
            if near[a, c]:
                if partner[c] == a or partner[c] == b:
                    partner[c], cost[c] = _cheapest(c, counts, sums, near, scale)
                else:
                    new = _ward(min(a, c), max(a, c), counts, sums, scale)
                    if new < cost[c] or (new == cost[c] and a < partner[c]):
                        partner[c], cost[c] = a, new
        partner[a], cost[a] = _cheapest(a, counts, sums, near, scale)
    return merges
