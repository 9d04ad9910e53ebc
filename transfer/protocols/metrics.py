"""Scores of predictions, each a plain function of (scores, class ids) that a slow loop could check."""

import numpy as np


def top1(scores: np.ndarray, class_ids: np.ndarray) -> float:
    """Share of samples whose best score is their class."""
    return float((scores.argmax(1) == class_ids).mean())


def per_class(predicted: np.ndarray, class_ids: np.ndarray, num_classes: int) -> np.ndarray:
    """float64 (C,): share of right answers within each class; nan for a class without samples."""
    total = np.bincount(class_ids, minlength=num_classes).astype(np.float64)
    right = np.bincount(class_ids[predicted == class_ids], minlength=num_classes)
    return np.divide(right, total, out=np.full(num_classes, np.nan), where=total > 0)


def mean_per_class(predicted: np.ndarray, class_ids: np.ndarray, num_classes: int) -> float:
    """Mean of `per_class` over the classes that have samples: every class counts alike, however rare."""
    return float(np.nanmean(per_class(predicted, class_ids, num_classes)))


def confusion(predicted: np.ndarray, class_ids: np.ndarray, num_classes: int) -> np.ndarray:
    """int64 (C, C): row = true class, column = predicted class."""
    return np.bincount(class_ids * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


def of_confusion(counts: np.ndarray, metric: str) -> float:
    """Top-1, or the mean over classes with samples, from a confusion matrix (C, C)."""
    right, total = np.diagonal(counts), counts.sum(1)
    if metric == "top1":
        return float(right.sum() / total.sum())
    return float((right[total > 0] / total[total > 0]).mean())


def chance(class_ids: np.ndarray, num_classes: int, metric: str) -> float:
    """What one constant answer reaches: the share of the commonest class, or 1 over the classes that have samples."""
    counts = np.bincount(class_ids, minlength=num_classes)
    return float(counts.max() / len(class_ids)) if metric == "top1" else 1.0 / int((counts > 0).sum())
