"""Average precision for tasks in which an image may show several classes, or none (VOC 2007)."""

import numpy as np


def average_precision(scores: np.ndarray, relevant: np.ndarray) -> float:
    """Area under precision over recall, as scikit-learn counts it: scores (N,), relevant bool (N,). nan without any.

    Samples of equal score are taken together, so their order cannot matter.
    """
    total = int(relevant.sum())
    if total == 0:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    right = np.cumsum(relevant[order])
    last_of_tie = np.r_[np.diff(scores[order]) != 0, True]
    seen = np.arange(1, len(scores) + 1)[last_of_tie]
    right = right[last_of_tie]
    return float((right / seen * np.diff(right, prepend=0)).sum() / total)


def eleven_point_precision(scores: np.ndarray, relevant: np.ndarray) -> float:
    """VOC 2007's own measure: the mean over recalls 0, 0.1, ..., 1 of the best precision at that recall or more."""
    total = int(relevant.sum())
    if total == 0:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    right = np.cumsum(relevant[order])
    precision, recall = right / np.arange(1, len(scores) + 1), right / total
    points = [precision[recall >= level - 1e-12].max(initial=0.0) for level in np.linspace(0, 1, 11)]
    return float(np.mean(points))


def mean_average_precision(scores: np.ndarray, relevant: np.ndarray, *, eleven_points: bool = False) -> float:
    """Mean over the classes that occur: scores (N, C), relevant bool (N, C)."""
    measure = eleven_point_precision if eleven_points else average_precision
    values = [measure(scores[:, c], relevant[:, c]) for c in range(scores.shape[1])]
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
