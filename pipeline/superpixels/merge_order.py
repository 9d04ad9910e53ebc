"""The order in which the regions of a fine superpixel map merge, from all of them down to one.

At each step the two 4-neighbouring regions merge whose union adds least to the total squared error (Ward's cost):
`|A| |B| / (|A| + |B|) * |mean_A - mean_B|^2` over (L, a, b, w*y, w*x), with L, a, b in CIE units. The position term
keeps regions compact; without it cuts follow colour into thin, tangled shapes (bench "superpixels").
Sums are integers and every cost is computed from them in one fixed order, so the result is the same on every CPU.
"""

import math

import numba
import numpy as np

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
    counts, sums, neighbours, degrees = _regions(fine, lab, num_regions)
    if num_regions > 1 and counts.min() == 0:
        raise ValueError(f"ids must be dense 0..{num_regions - 1}; id {int(counts.argmin())} has no pixel")
    position = spatial_weight / math.sqrt(fine.size / num_regions if regions_px is None else regions_px)
    weights = np.array([_LIGHTNESS, 1.0, 1.0, position, position])
    merges = _merge(counts, sums, neighbours, degrees, weights)
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
def _regions(
    fine: np.ndarray, lab: np.ndarray, num_regions: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pixels (n,), sums of (L, a, b, y, x) (n, 5), and neighbour lists: ids (n, n) of which row i uses degrees[i]."""
    height, width = fine.shape
    counts = np.zeros(num_regions, np.int64)
    sums = np.zeros((num_regions, 5), np.int64)
    known = np.zeros((num_regions, num_regions), np.bool_)
    neighbours = np.empty((num_regions, num_regions), np.int32)
    degrees = np.zeros(num_regions, np.int64)
    for y in range(height):
        start, lightness, a, b = 0, 0, 0, 0
        for x in range(width):
            region = fine[y, x]
            if y > 0 and fine[y - 1, x] != region:
                _meet(fine[y - 1, x], region, known, neighbours, degrees)
            lightness += lab[y, x, 0]
            a += lab[y, x, 1]
            b += lab[y, x, 2]
            if x + 1 == width or fine[y, x + 1] != region:  # the end of a run of equal ids
                if x + 1 < width:
                    _meet(region, fine[y, x + 1], known, neighbours, degrees)
                run = x + 1 - start
                counts[region] += run
                sums[region, 0] += lightness
                sums[region, 1] += a
                sums[region, 2] += b
                sums[region, 3] += run * y
                sums[region, 4] += run * (start + x) // 2
                start, lightness, a, b = x + 1, 0, 0, 0
    return counts, sums, neighbours, degrees


@numba.njit(cache=True, nogil=True)
def _meet(i: int, j: int, known: np.ndarray, neighbours: np.ndarray, degrees: np.ndarray) -> None:
    if not known[i, j]:
        known[i, j] = known[j, i] = True
        neighbours[i, degrees[i]], neighbours[j, degrees[j]] = j, i
        degrees[i] += 1
        degrees[j] += 1


@numba.njit(cache=True, nogil=True)
def _merge(
    counts: np.ndarray, sums: np.ndarray, neighbours: np.ndarray, degrees: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Every region remembers its cheapest neighbour; a tournament over regions finds the cheapest of all."""
    n = counts.shape[0]
    means = sums / counts.reshape(n, 1) * weights
    merges = np.zeros((n - 1, 2), np.int32)
    partner = np.full(n, -1, np.int64)
    leaves = 1
    while leaves < n:
        leaves *= 2
    cost = np.full(leaves, np.inf)
    winner = np.empty(2 * leaves, np.int64)  # winner[1] is the region with the cheapest merge, ties to the smaller id
    winner[leaves:] = np.arange(leaves)
    for region in range(n):
        partner[region], cost[region] = _cheapest(region, counts, means, neighbours, degrees)
    for node in range(leaves - 1, 0, -1):
        left, right = winner[2 * node], winner[2 * node + 1]
        winner[node] = left if cost[left] <= cost[right] else right
    for step in range(n - 1):
        a, b = min(winner[1], partner[winner[1]]), max(winner[1], partner[winner[1]])
        merges[step, 0], merges[step, 1] = a, b
        counts[a] += counts[b]
        for f in range(sums.shape[1]):
            sums[a, f] += sums[b, f]
            means[a, f] = sums[a, f] / counts[a] * weights[f]
        cost[b] = np.inf
        _replay(b, cost, winner)
        _join_lists(a, b, neighbours, degrees)
        for i in range(degrees[a]):
            c = neighbours[a, i]
            if partner[c] == a or partner[c] == b:
                partner[c], cost[c] = _cheapest(c, counts, means, neighbours, degrees)
                _replay(c, cost, winner)
            else:
                new = _ward(a, c, counts, means)
                if new < cost[c] or (new == cost[c] and a < partner[c]):
                    partner[c], cost[c] = a, new
                    _replay(c, cost, winner)
        partner[a], cost[a] = _cheapest(a, counts, means, neighbours, degrees)
        _replay(a, cost, winner)
    return merges


@numba.njit(cache=True, nogil=True)
def _ward(a: int, b: int, counts: np.ndarray, means: np.ndarray) -> float:
    """Increase of the total squared error when a and b become one. Symmetric to the last bit."""
    distance = 0.0
    for f in range(5):
        difference = means[a, f] - means[b, f]
        distance += difference * difference
    return distance * ((counts[a] * counts[b]) / (counts[a] + counts[b]))


@numba.njit(cache=True, nogil=True)
def _cheapest(
    a: int, counts: np.ndarray, means: np.ndarray, neighbours: np.ndarray, degrees: np.ndarray
) -> tuple[int, float]:
    """The neighbour that is cheapest to merge with a (the smallest id among equals), and the cost."""
    best, best_cost = -1, np.inf
    for i in range(degrees[a]):
        b = neighbours[a, i]
        cost = _ward(a, b, counts, means)
        if cost < best_cost or (cost == best_cost and b < best):
            best, best_cost = b, cost
    return best, best_cost


@numba.njit(cache=True, nogil=True)
def _replay(region: int, cost: np.ndarray, winner: np.ndarray) -> None:
    """Play the matches of one region again after its cost changed."""
    node = (winner.shape[0] // 2 + region) // 2
    while node > 0:
        left, right = winner[2 * node], winner[2 * node + 1]
        winner[node] = left if cost[left] <= cost[right] else right
        node //= 2


@numba.njit(cache=True, nogil=True)
def _join_lists(a: int, b: int, neighbours: np.ndarray, degrees: np.ndarray) -> None:
    """Neighbours of b become neighbours of a; b leaves all lists."""
    _remove(a, b, neighbours, degrees)
    for i in range(degrees[b]):
        c = neighbours[b, i]
        if c == a:
            continue
        _remove(c, b, neighbours, degrees)
        known = False
        for j in range(degrees[c]):
            known |= neighbours[c, j] == a
        if not known:
            neighbours[c, degrees[c]] = a
            degrees[c] += 1
            neighbours[a, degrees[a]] = c
            degrees[a] += 1
    degrees[b] = 0


@numba.njit(cache=True, nogil=True)
def _remove(a: int, b: int, neighbours: np.ndarray, degrees: np.ndarray) -> None:
    for i in range(degrees[a]):
        if neighbours[a, i] == b:
            degrees[a] -= 1
            neighbours[a, i] = neighbours[a, degrees[a]]
            return
