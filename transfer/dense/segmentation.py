"""Segmentation with regions: what each holds, what any labelling of them scores, and the best they could score.

A prediction per region is constant on its pixels, so all pixel counts follow from one table per image: how many pixels
of each class a region holds. Scores from these tables equal those of painted pictures exactly, and need no painting.
"""

import math

import numpy as np

IGNORE = 255  # label of pixels that are never counted


def region_histograms(region_map: np.ndarray, label_map: np.ndarray, num_regions: int, num_classes: int) -> np.ndarray:
    """int64 (K, C): pixels of each class in each region. Both maps (h, w); labels >= num_classes are not counted."""
    counted = label_map < num_classes
    flat = region_map[counted].astype(np.int64) * num_classes + label_map[counted]
    return np.bincount(flat, minlength=num_regions * num_classes).reshape(num_regions, num_classes)


def grid_map(height: int, width: int, num_regions: int) -> np.ndarray:
    """int64 (h, w): a uniform grid with at least `num_regions` cells and as few as possible, the squarest of these."""
    rows, columns = grid_shape(height, width, num_regions)
    y = np.arange(height) * rows // height
    x = np.arange(width) * columns // width
    return y[:, None] * columns + x[None, :]


def grid_shape(height: int, width: int, num_regions: int) -> tuple[int, int]:
    """(rows, columns) with rows * columns >= num_regions: fewest cells within a tenth of the count, then squarest."""
    choices = []
    for rows in range(1, num_regions + 1):
        columns = -(-num_regions // rows)
        skew = abs(math.log((height / rows) / (width / columns)))
        spare = rows * columns / num_regions - 1
        choices.append((spare > 0.1, skew, spare, rows, columns))
    return min(choices)[3:]


def grid_label(sizes: set[tuple[int, int]], num_regions: int) -> tuple[str, int | str]:
    """(label, cells) of the grids of all test images: rows and columns follow the sides of each picture (h, w)."""
    shapes = {grid_shape(*size, num_regions) for size in sizes}
    counts = sorted({rows * columns for rows, columns in shapes})
    cells = counts[0] if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return "x".join(map(str, shapes.pop())) if len(shapes) == 1 else f"{cells} cells", cells


def confusion_of(histograms: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """int64 (C, C), row = true, column = predicted class: histograms (R, C) of any regions, predicted class (R,)."""
    num_classes = histograms.shape[1]
    counts = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(counts.T, predicted, histograms.astype(np.int64))
    return counts


def best_labels(histograms: np.ndarray) -> np.ndarray:
    """int64 (K,): the commonest class of each region, which no labelling of the regions can beat in pixels right."""
    return histograms.argmax(1)


def intersection_over_union(confusion: np.ndarray) -> np.ndarray:
    """float64 (C,): IoU of each class over all counted pixels; nan where neither truth nor prediction has the class."""
    right = np.diag(confusion).astype(np.float64)
    union = confusion.sum(0) + confusion.sum(1) - right
    return np.divide(right, union, out=np.full(len(right), np.nan), where=union > 0)


def mean_iou(confusion: np.ndarray) -> float:
    """Mean IoU over the classes that occur in the truth. Pixels of ignored labels are not in `confusion`."""
    present = confusion.sum(1) > 0
    return float(intersection_over_union(confusion)[present].mean()) if present.any() else math.nan


def pixel_accuracy(confusion: np.ndarray) -> float:
    """Share of counted pixels that are right. Of the best labels it is the achievable segmentation accuracy."""
    total = confusion.sum()
    return float(np.trace(confusion) / total) if total else math.nan


def constant_mean_iou(confusion: np.ndarray) -> float:
    """Mean IoU of the best answer that is one class everywhere: the chance level."""
    truth = confusion.sum(1)
    present = truth > 0
    return float(truth.max() / truth.sum() / present.sum()) if present.any() else math.nan
