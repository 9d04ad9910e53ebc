"""Compiled loops behind `hierarchy.fit`: crop, merge or split to exactly k regions, number them in raster order.

A map is small next to the output of a crop, so neighbouring output pixels mostly share a fine id. The loops therefore
work on runs of equal ids and on distinct rows, and touch single pixels only to write them.
"""

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def fit_crop(
    fine: np.ndarray,
    merges: np.ndarray,
    y0: float,
    x0: float,
    y1: float,
    x1: float,
    flip: bool,
    k: int,
    out: np.ndarray,
) -> None:
    """Fill `out` (h, w) from the crop of `fine`; see `hierarchy.fit`."""
    rows = _nearest(y0, y1, fine.shape[0], out.shape[0])
    columns = _nearest(x0, x1, fine.shape[1], out.shape[1])
    if flip:
        columns = columns[::-1].copy()
    _fit(fine, rows, columns, merges, k, out)


@numba.njit(cache=True, nogil=True)
def fit_pixels(warped: np.ndarray, merges: np.ndarray, k: int, out: np.ndarray) -> None:
    """Fill `out`, of the shape of `warped`; see `hierarchy.fit_warped`."""
    _fit(warped, np.arange(warped.shape[0]), np.arange(warped.shape[1]), merges, k, out)


@numba.njit(cache=True, nogil=True)
def _nearest(start: float, stop: float, length: int, samples: int) -> np.ndarray:
    """Source indices of `samples` pixel centres spread over [start, stop] of an axis of `length` pixels."""
    indices = np.empty(samples, np.int64)
    for i in range(samples):
        position = (start + (i + 0.5) / samples * (stop - start)) * length
        indices[i] = min(max(int(position), 0), length - 1)
    return indices


@numba.njit(cache=True, nogil=True)
def _count(fine: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Output pixels per fine id, and each id's rank in raster order of first pixel (256: absent)."""
    counts = np.zeros(256, np.int64)
    ranks = np.full(256, 256, np.int64)
    next_rank = 0
    i = 0
    while i < rows.shape[0]:
        repeats = 1  # an enlarged map shows the same row several times
        while i + repeats < rows.shape[0] and rows[i + repeats] == rows[i]:
            repeats += 1
        source = fine[rows[i]]
        start = 0
        for j in range(1, columns.shape[0] + 1):
            region = source[columns[start]]
            if j == columns.shape[0] or source[columns[j]] != region:
                if counts[region] == 0:
                    ranks[region] = next_rank
                    next_rank += 1
                counts[region] += repeats * (j - start)
                start = j
        i += repeats
    return counts, ranks


@numba.njit(cache=True, nogil=True)
def _fit(fine: np.ndarray, rows: np.ndarray, columns: np.ndarray, merges: np.ndarray, k: int, out: np.ndarray) -> None:
    counts, ranks = _count(fine, rows, columns)
    num_regions = merges.shape[0] + 1
    present = int(np.count_nonzero(counts))
    if np.any(counts[num_regions:] > 0):
        raise ValueError("the superpixel map holds an id that its merge order does not know (merges has n-1 rows)")
    surplus = present - k
    root = np.arange(num_regions)
    step = 0
    while surplus > 0:
        if step == merges.shape[0]:  # compiled code does not look at bounds, and an .npy file has no checksum
            raise ValueError("the merge order does not join all regions of the map")
        a, b = merges[step, 0], merges[step, 1]
        if a >= b or b >= num_regions or root[a] != a or root[b] != b:
            raise ValueError("the merge order merges a region that is gone or that the map does not have")
        root[b] = a
        if counts[b] > 0:
            if counts[a] > 0:
                surplus -= 1
            counts[a] += counts[b]
            ranks[a] = min(ranks[a], ranks[b])
        step += 1
    for b in merges[:step, 1][::-1]:  # backwards, so that the root of root[b] is already final
        root[b] = root[root[b]]
    ids = _dense_ids(root, ranks)
    _paint(fine, rows, columns, ids, out)
    if present < k:
        _split_to(out, present, k)


@numba.njit(cache=True, nogil=True)
def _dense_ids(root: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """New id per fine id: roots that are present, numbered by the rank of their first pixel."""
    at_rank = np.full(256, -1, np.int64)
    for region in range(root.shape[0]):
        if root[region] == region and ranks[region] < 256:
            at_rank[ranks[region]] = region
    ids = np.zeros(256, np.int64)
    next_id = 0
    for rank in range(256):
        if at_rank[rank] >= 0:
            ids[at_rank[rank]] = next_id
            next_id += 1
    for region in range(root.shape[0]):
        ids[region] = ids[root[region]]
    return ids


@numba.njit(cache=True, nogil=True)
def _paint(fine: np.ndarray, rows: np.ndarray, columns: np.ndarray, ids: np.ndarray, out: np.ndarray) -> None:
    for i in range(rows.shape[0]):
        if i > 0 and rows[i] == rows[i - 1]:
            out[i] = out[i - 1]
        else:
            source, target = fine[rows[i]], out[i]
            for j in range(columns.shape[0]):
                target[j] = ids[source[columns[j]]]


@numba.njit(cache=True, nogil=True)
def _split_to(out: np.ndarray, present: int, k: int) -> None:
    """Halve the largest region (the smallest id among equals) until there are k; then number in raster order."""
    boxes = np.zeros((k, 4), np.int64)  # y0, x0, y1, x1: around each region, may be wider than it
    sizes = np.zeros(k, np.int64)
    _measure(out, boxes, sizes)
    in_rows = np.empty(out.shape[0], np.int32)
    in_columns = np.empty(out.shape[1], np.int32)
    for new in range(present, k):
        _halve(out, int(np.argmax(sizes[:new])), new, boxes, sizes, in_rows, in_columns)
    order = np.zeros(k, out.dtype)
    seen = np.zeros(k, np.bool_)
    next_id = 0
    for y in range(out.shape[0]):
        line = out[y]
        for x in range(line.shape[0]):
            if not seen[line[x]]:
                seen[line[x]] = True
                order[line[x]] = next_id
                next_id += 1
    for y in range(out.shape[0]):
        line = out[y]
        for x in range(line.shape[0]):
            line[x] = order[line[x]]


@numba.njit(cache=True, nogil=True)
def _measure(out: np.ndarray, boxes: np.ndarray, sizes: np.ndarray) -> None:
    """Box and pixel count of each region, from runs of equal ids."""
    boxes[:, 0], boxes[:, 1] = out.shape[0], out.shape[1]
    for y in range(out.shape[0]):
        start = 0
        for x in range(1, out.shape[1] + 1):
            region = out[y, start]
            if x == out.shape[1] or out[y, x] != region:
                sizes[region] += x - start
                boxes[region, 0] = min(boxes[region, 0], y)
                boxes[region, 1] = min(boxes[region, 1], start)
                boxes[region, 2] = y + 1
                boxes[region, 3] = max(boxes[region, 3], x)
                start = x


@numba.njit(cache=True, nogil=True)
def _halve(
    out: np.ndarray,
    region: int,
    new: int,
    boxes: np.ndarray,
    sizes: np.ndarray,
    in_rows: np.ndarray,
    in_columns: np.ndarray,
) -> None:
    """Give the lower or right half of `region` the id `new`: a straight line across its longer side."""
    y0, x0, y1, x1 = boxes[region]
    inside = out.dtype.type(region)
    in_columns[x0:x1] = 0
    for y in range(y0, y1):  # two plain loops: the compiler turns each into vector instructions
        pixels, columns = out[y, x0:x1], in_columns[x0:x1]
        row = np.int32(0)
        for x in range(pixels.shape[0]):
            columns[x] += pixels[x] == inside
        for x in range(pixels.shape[0]):
            row += pixels[x] == inside
        in_rows[y] = row
    while in_rows[y0] == 0:
        y0 += 1
    while in_rows[y1 - 1] == 0:
        y1 -= 1
    while in_columns[x0] == 0:
        x0 += 1
    while in_columns[x1 - 1] == 0:
        x1 -= 1
    boxes[region, 0], boxes[region, 1], boxes[region, 2], boxes[region, 3] = y0, x0, y1, x1
    boxes[new] = boxes[region]
    if y1 - y0 >= x1 - x0:
        line, size = _middle(in_rows[y0:y1])
        boxes[region, 2] = boxes[new, 0] = y0 = y0 + line
    else:
        line, size = _middle(in_columns[x0:x1])
        boxes[region, 3] = boxes[new, 1] = x0 = x0 + line
    sizes[new] = sizes[region] - size
    sizes[region] = size
    outside = out.dtype.type(new)
    for y in range(y0, y1):
        pixels = out[y, x0:x1]
        for x in range(pixels.shape[0]):
            pixels[x] = outside if pixels[x] == inside else pixels[x]


@numba.njit(cache=True, nogil=True)
def _middle(counts: np.ndarray) -> tuple[int, int]:
    """Where to cut a line of counts (first and last positive) most evenly: items before the cut, and their sum."""
    total = counts.sum()
    best, best_sum = 1, counts[0]
    before = counts[0]
    for line in range(1, counts.shape[0]):
        if abs(2 * before - total) < abs(2 * best_sum - total):
            best, best_sum = line, before
        before += counts[line]
    return best, best_sum
