"""The order in which the regions of a fine superpixel map merge, from all of them down to one.

At each step the two 4-neighbouring regions merge whose union adds least to the total squared error (Ward's cost):
`|A| |B| / (|A| + |B|) * |mean_A - mean_B|^2` over (L, a, b, w*y, w*x), with L, a, b in CIE units. The position term
keeps regions compact; without it cuts follow colour into thin, tangled shapes (bench "superpixels").
Sums are integers and every cost is computed from them in one fixed order, so the result is the same on every CPU.
"""

import math

import numba
import numpy as np

_NONE = np.uint32(0xFFFFFFFF)  # of numbers without a sign, whose places in arrays numba need not look at twice
_LIGHTNESS = 100 / 255  # 8-bit Lab stores L of 0..100 as 0..255, and a and b as they are, moved by 128


def merge_order(
    fine: np.ndarray, lab: np.ndarray, spatial_weight: float, regions_px: float | None = None
) -> np.ndarray:
    """Merges of a fine map, cheapest first.

    fine: integer (h, w), ids 0..n-1, each id one 4-connected region. lab: uint8 (h, w, 3), OpenCV's 8-bit Lab.
    spatial_weight: a distance of one region spacing counts as this many CIE units of colour. The spacing is the square
    root of `regions_px`, the pixels of an average region (default: of this map).
    Returns (n-1, 2), uint8 when n <= 256 else int32: row t = (a, b) merges region b into a, a < b; both are survivors
    of the rows before, and the survivor keeps the id a.
    """
    if lab.shape != (*fine.shape, 3) or lab.dtype != np.uint8:
        raise ValueError(f"lab must be uint8 {(*fine.shape, 3)}, like the map, got {lab.dtype} {lab.shape}")
    num_regions = int(fine.max()) + 1
    counts, sums, borders = _regions(fine, lab, num_regions)
    if num_regions > 1 and counts.min() == 0:
        raise ValueError(f"ids must be dense 0..{num_regions - 1}; id {int(counts.argmin())} has no pixel")
    position = spatial_weight / math.sqrt(fine.size / num_regions if regions_px is None else regions_px)
    weights = np.array([_LIGHTNESS, 1.0, 1.0, position, position])
    merges = _merge(counts, sums, *_lists(borders, num_regions), weights)
    return merges.astype(np.uint8) if num_regions <= 256 else merges


@numba.njit(cache=True, nogil=True)
def ids_after(merges: np.ndarray, num_merges: int) -> np.ndarray:
    """uint8 (n,): the region that each of the n = len(merges) + 1 belongs to after the first merges, 256 at most.

    A survivor keeps the smaller id, and fine ids follow their first pixels, so ids in the order of survivors are again
    in raster order of first pixel.
    """
    root = np.arange(merges.shape[0] + 1)
    for step in range(num_merges - 1, -1, -1):  # backwards, so that the root of the survivor is already final
        root[merges[step, 1]] = root[merges[step, 0]]
    ids = np.empty(root.shape[0], np.uint8)
    next_id = 0
    for region in range(root.shape[0]):
        if root[region] == region:
            ids[region] = next_id
            next_id += 1
        else:
            ids[region] = ids[root[region]]
    return ids


@numba.njit(cache=True, nogil=True)
def joins_all(merges: np.ndarray) -> bool:
    """Whether each step of (n-1, 2) joins two regions that are left, a < b, so that region 0 alone is left."""
    gone = np.zeros(merges.shape[0] + 1, np.bool_)
    for step in range(merges.shape[0]):
        a, b = merges[step, 0], merges[step, 1]
        if a >= b or b >= gone.shape[0] or gone[a] or gone[b]:
            return False
        gone[b] = True
    return True


@numba.njit(cache=True, nogil=True)
def renumber(regions: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """uint8 (h, w): `ids` of the regions."""
    out = np.empty(regions.shape, np.uint8)
    for y in range(regions.shape[0]):
        for x in range(regions.shape[1]):
            out[y, x] = ids[regions[y, x]]
    return out


@numba.njit(cache=True, nogil=True)
def _regions(fine: np.ndarray, lab: np.ndarray, num_regions: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels (n,), sums of (L, a, b, y, x) (n, 5), and the pairs of regions that touch, each once (m, 2)."""
    height, width = fine.shape
    counts = np.zeros(num_regions, np.int64)
    sums = np.zeros((num_regions, 5), np.int64)
    known = np.zeros((num_regions, num_regions), np.bool_)
    borders = np.empty((min(num_regions * (num_regions - 1) // 2, 2 * fine.size), 2), np.uint32)
    found = 0
    for y in range(height):
        start, lightness, a, b = 0, 0, 0, 0
        for x in range(width):
            region = np.uint32(fine[y, x])
            if y > 0:
                above = np.uint32(fine[y - 1, x])
                if above != region and not known[above, region]:
                    known[above, region] = known[region, above] = True
                    borders[found, 0], borders[found, 1] = above, region
                    found += 1
            lightness += lab[y, x, 0]
            a += lab[y, x, 1]
            b += lab[y, x, 2]
            if x + 1 == width or np.uint32(fine[y, x + 1]) != region:  # the end of a run of equal ids
                if x + 1 < width:
                    following = np.uint32(fine[y, x + 1])
                    if not known[region, following]:
                        known[region, following] = known[following, region] = True
                        borders[found, 0], borders[found, 1] = region, following
                        found += 1
                run = x + 1 - start
                counts[region] += run
                sums[region, 0] += lightness
                sums[region, 1] += a
                sums[region, 2] += b
                sums[region, 3] += run * y
                sums[region, 4] += run * (start + x) >> 1
                start, lightness, a, b = x + 1, 0, 0, 0
    return counts, sums, borders[:found]


@numba.njit(cache=True, nogil=True)
def _lists(borders: np.ndarray, num_regions: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The neighbours of each region as a linked list. Border m has the sides 2 m and 2 m + 1: `ends` names the region
    that a side leads to, `after` the next side of the same region (or _NONE), `first` (n,) where its list begins.
    """
    ends, after = borders.copy().reshape(-1), np.empty(borders.size, np.uint32)
    first = np.full(num_regions, _NONE)
    for side in range(ends.shape[0]):
        region = ends[side ^ 1]
        after[side], first[region] = first[region], side
    return ends, after, first


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _merge(
    counts: np.ndarray, sums: np.ndarray, ends: np.ndarray, after: np.ndarray, first: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Every border remembers its cost and every region its cheapest neighbour; a tournament over regions finds the
    cheapest of all.
    """
    n = counts.shape[0]
    pixels = counts.astype(np.float64)  # whole numbers still, and exact
    means = sums / pixels.reshape(n, 1) * weights
    merges = np.zeros((n - 1, 2), np.int32)
    border = np.empty(ends.shape[0] // 2)
    for m in range(border.shape[0]):
        border[m] = _ward(ends[2 * m], ends[2 * m + 1], pixels, means)
    partner = np.full(n, _NONE)
    leaves = 1
    while leaves < n:
        leaves *= 2
    cost = np.full(leaves, np.inf)
    winner = np.empty(2 * leaves, np.uint32)  # winner[1] is the region with the cheapest merge, ties to the smaller id
    winner[leaves:] = np.arange(leaves)
    for region in range(n):
        partner[region], cost[region] = _cheapest(region, border, ends, after, first)
    for node in range(leaves - 1, 0, -1):
        left, right = winner[2 * node], winner[2 * node + 1]
        winner[node] = left if cost[left] <= cost[right] else right
    met = np.full(n, -1, np.int32)
    for step in range(n - 1):
        a, b = min(winner[1], partner[winner[1]]), max(winner[1], partner[winner[1]])
        merges[step, 0], merges[step, 1] = a, b
        pixels[a] += pixels[b]
        for f in range(sums.shape[1]):
            sums[a, f] += sums[b, f]
            means[a, f] = sums[a, f] / pixels[a] * weights[f]
        cost[b] = np.inf
        _replay(b, cost, winner)
        _join_lists(a, b, ends, after, first, met, step)
        best, best_cost = _NONE, np.inf
        side = first[a]
        while side != _NONE:
            c, new = ends[side], _ward(a, ends[side], pixels, means)
            border[side >> 1] = new
            if new < best_cost or (new == best_cost and c < best):
                best, best_cost = c, new
            if partner[c] == a or partner[c] == b:
                partner[c], cost[c] = _cheapest(c, border, ends, after, first)
                _replay(c, cost, winner)
            elif new < cost[c] or (new == cost[c] and a < partner[c]):
                partner[c], cost[c] = a, new
                _replay(c, cost, winner)
            side = after[side]
        partner[a], cost[a] = best, best_cost
        _replay(a, cost, winner)
    return merges


@numba.njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _ward(a: int, b: int, pixels: np.ndarray, means: np.ndarray) -> float:
    """Increase of the total squared error when a and b become one. Symmetric to the last bit."""
    distance = 0.0
    for f in range(5):
        difference = means[a, f] - means[b, f]
        distance += difference * difference
    return distance * ((pixels[a] * pixels[b]) / (pixels[a] + pixels[b]))


@numba.njit(cache=True, nogil=True, forceinline=True)
def _cheapest(
    a: int, border: np.ndarray, ends: np.ndarray, after: np.ndarray, first: np.ndarray
) -> tuple[np.uint32, float]:
    """The neighbour that is cheapest to merge with a (the smallest id among equals), and the cost."""
    best, best_cost = _NONE, np.inf
    side = first[a]
    while side != _NONE:
        b, cost = ends[side], border[side >> 1]
        if cost < best_cost or (cost == best_cost and b < best):
            best, best_cost = b, cost
        side = after[side]
    return best, best_cost


@numba.njit(cache=True, nogil=True, forceinline=True)
def _replay(region: int, cost: np.ndarray, winner: np.ndarray) -> None:
    """Play the matches of one region again after its cost changed, up to one that another region wins as before."""
    node = (winner.shape[0] // 2 + region) >> 1
    while node > 0:
        left, right = winner[2 * node], winner[2 * node + 1]
        best = left if cost[left] <= cost[right] else right
        if best == winner[node] and best != region:
            return
        winner[node] = best
        node >>= 1


@numba.njit(cache=True, nogil=True, forceinline=True)
def _join_lists(
    a: int, b: int, ends: np.ndarray, after: np.ndarray, first: np.ndarray, met: np.ndarray, step: int
) -> None:
    """Neighbours of b become neighbours of a; b leaves all lists. `met` is room for marks."""
    side = first[a]
    while side != _NONE:
        met[ends[side]] = step
        side = after[side]
    side = first[b]
    while side != _NONE:
        c, following = ends[side], after[side]
        if c == a or met[c] == step:
            _remove(c, side ^ 1, after, first)
        else:
            ends[side ^ 1] = a
            after[side], first[a] = first[a], side
        side = following
    first[b] = _NONE


@numba.njit(cache=True, nogil=True, forceinline=True)
def _remove(region: int, side: int, after: np.ndarray, first: np.ndarray) -> None:
    if first[region] == side:
        first[region] = after[side]
        return
    before = first[region]
    while after[before] != side:
        before = after[before]
    after[before] = after[side]
