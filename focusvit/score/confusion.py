"""What a confusion matrix says: int64 (C, C), true class by predicted class, of at least one sample."""

import numpy as np


def chance(confusion: np.ndarray) -> float:
    """The share of samples that always answering the commonest class gets right."""
    return float(confusion.sum(1).max() / confusion.sum())


def recall(confusion: np.ndarray) -> list[float | None]:
    """The share of each class's samples that were answered rightly; None for a class without samples."""
    return [float(row[i] / row.sum()) if row.any() else None for i, row in enumerate(confusion)]
