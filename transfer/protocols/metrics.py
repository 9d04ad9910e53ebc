"""Scores of a confusion matrix (C, C), row = true class, column = predicted class; and what guessing reaches."""

import numpy as np


def confusion(predicted: np.ndarray, class_ids: np.ndarray, num_classes: int) -> np.ndarray:
    """int64 (C, C) of predicted and true classes (N,)."""
    return np.bincount(class_ids * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


def per_class(counts: np.ndarray) -> np.ndarray:
    """float64 (C,): share of right answers within each class; nan for a class without samples."""
    total = counts.sum(1)
    return np.divide(np.diagonal(counts), total, out=np.full(len(counts), np.nan), where=total > 0)


def of_confusion(counts: np.ndarray, metric: str) -> float:
    """Top-1, or the mean of `per_class` over the classes that have samples: each counts alike, however rare."""
    return float(np.trace(counts) / counts.sum()) if metric == "top1" else float(np.nanmean(per_class(counts)))


def chance(class_ids: np.ndarray, num_classes: int, metric: str) -> float:
    """What one constant answer reaches: the share of the commonest class, or 1 over the classes that have samples."""
    counts = np.bincount(class_ids, minlength=num_classes)
    return float(counts.max() / len(class_ids)) if metric == "top1" else 1.0 / int((counts > 0).sum())
