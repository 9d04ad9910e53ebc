"""Slow, obvious versions of the superpixel hierarchy: the references that the compiled ones must equal."""

import numpy as np


def dense(labels: np.ndarray) -> np.ndarray:
    """The same partition with ids 0..n-1 in raster order of first pixel."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].reshape(labels.shape)


def is_dense(labels: np.ndarray) -> bool:
    return bool(np.array_equal(labels, dense(labels)))


def components(labels: np.ndarray) -> np.ndarray:
    """4-connected regions of equal labels, by flood fill in raster order."""
    regions = np.full(labels.shape, -1)
    next_id = 0
    for start in np.ndindex(labels.shape):
        if regions[start] >= 0:
            continue
        stack = [start]
        while stack:
            y, x = stack.pop()
            if regions[y, x] >= 0:
                continue
            regions[y, x] = next_id
            for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= v < labels.shape[0] and 0 <= u < labels.shape[1] and labels[v, u] == labels[start]:
                    stack.append((v, u))
        next_id += 1
    return regions


def all_connected(labels: np.ndarray) -> bool:
    return int(components(labels).max()) + 1 == len(np.unique(labels))


def slow_merge_order(fine: np.ndarray, lab: np.ndarray, spatial_weight: float, regions_px: float) -> np.ndarray:
    """Merge the cheapest neighbouring pair (smallest ids among equals), everything computed anew at each step."""
    labels = fine.astype(int).copy()
    ys, xs = np.indices(fine.shape)
    position = spatial_weight / np.sqrt(regions_px)
    features = np.dstack([lab[..., 0] * (100 / 255), lab[..., 1], lab[..., 2], ys * position, xs * position])
    merges = []
    while len(ids := np.unique(labels)) > 1:
        means = {i: features[labels == i].mean(0) for i in ids}
        counts = {i: np.count_nonzero(labels == i) for i in ids}
        best = min((_ward(counts[a], counts[b], means[a], means[b]), a, b) for a, b in sorted(_touching_pairs(labels)))
        merges.append(best[1:])
        labels[labels == best[2]] = best[1]
    return np.array(merges, int).reshape(-1, 2)


def _ward(count_a: int, count_b: int, mean_a: np.ndarray, mean_b: np.ndarray) -> float:
    # Rounded, so that costs which are equal in exact arithmetic tie here as well.
    return round(count_a * count_b / (count_a + count_b) * float(((mean_a - mean_b) ** 2).sum()), 6)


def _touching_pairs(labels: np.ndarray) -> set[tuple[int, int]]:
    pairs = set()
    for a, b in ((labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:])):
        different = a != b
        pairs |= set(zip(np.minimum(a, b)[different].tolist(), np.maximum(a, b)[different].tolist()))
    return pairs


def slow_cut(fine: np.ndarray, merges: np.ndarray, k: int) -> np.ndarray:
    labels = fine.astype(int).copy()
    for a, b in merges[: len(merges) + 1 - k].tolist():
        labels[labels == b] = a
    return dense(labels)


def slow_fit(
    fine: np.ndarray, merges: np.ndarray, crop: tuple[float, ...], flip: bool, size: tuple[int, int], k: int
) -> np.ndarray:
    y0, x0, y1, x1 = crop
    height, width = size
    out = np.empty(size, int)
    for i, j in np.ndindex(size):
        y = (y0 + (i + 0.5) / height * (y1 - y0)) * fine.shape[0]
        x = (x0 + (j + 0.5) / width * (x1 - x0)) * fine.shape[1]
        column = width - 1 - j if flip else j
        out[i, column] = fine[min(int(y), fine.shape[0] - 1), min(int(x), fine.shape[1] - 1)]
    return slow_fit_warped(out, merges, k)


def slow_fit_warped(warped: np.ndarray, merges: np.ndarray, k: int) -> np.ndarray:
    labels = warped.astype(int).copy()
    for a, b in merges.tolist():
        if len(np.unique(labels)) <= k:
            break
        labels[labels == b] = a
    labels = dense(labels)
    while labels.max() + 1 < k:
        _split_largest(labels)
    return dense(labels)


def _split_largest(labels: np.ndarray) -> None:
    largest = int(np.bincount(labels.ravel()).argmax())
    ys, xs = np.nonzero(labels == largest)
    tall = np.ptp(ys) >= np.ptp(xs)
    along = ys if tall else xs
    lines = range(along.min() + 1, along.max() + 1)
    line = min(lines, key=lambda at: abs(2 * np.count_nonzero(along < at) - len(along)))
    labels[ys[along >= line], xs[along >= line]] = labels.max() + 1
