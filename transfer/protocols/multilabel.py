"""Samples that show any number of classes (VOC 2007): how they are recognised, read and measured."""

import numpy as np
from sklearn.metrics import average_precision_score

from pipeline.errors import DataError
from pipeline.shards.dataset import Split
from pipeline.shards.proof import read_proven


def is_multilabel(split: Split) -> bool:
    """Whether samples carry lists of labels instead of a class; looks at the first few."""
    some = [split.read(number) for number in range(min(8, split.num_samples))]
    return (
        bool(some)
        and all(one.class_id is None and one.label_map is None for one in some)
        and any("labels" in one.meta for one in some)
    )


def read_relevant(split: Split) -> np.ndarray:
    """bool (N, C) from the `labels` of every sample. Raises DataError for a sample without such a list."""
    relevant = np.zeros((split.num_samples, split.num_classes), bool)
    for number in range(split.num_samples):
        sample = read_proven(split, number)
        labels = sample.meta.get("labels")
        if labels is None:
            raise DataError(f"sample {sample.key} of split '{split.name}' at {split.uri} has no list of labels.")
        if labels and not 0 <= min(labels) <= max(labels) < split.num_classes:
            raise DataError(
                f"sample {sample.key} of split '{split.name}' at {split.uri} has the labels {labels}, outside "
                f"0..{split.num_classes - 1}."
            )
        relevant[number, labels] = True
    return relevant


def average_precision(scores: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """float64 (C,) by class, from scores (N, C) and relevant bool (N, C); nan for a class that no sample shows."""
    found = np.full(scores.shape[1], np.nan)
    known = relevant.any(0)
    found[known] = average_precision_score(relevant[:, known], scores[:, known], average=None) if known.any() else ()
    return found


def eleven_point_precision(scores: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """VOC 2007's own measure, float64 (C,): the mean over recalls 0, 0.1, ..., 1 of the best precision at that recall
    or more; nan for a class that no sample shows."""
    order = np.argsort(-scores, axis=0, kind="stable")
    right = np.cumsum(np.take_along_axis(relevant, order, 0), 0)
    precision = right / np.arange(1, len(scores) + 1)[:, None]
    with np.errstate(invalid="ignore"):
        recall = right / right[-1]
    points = [np.where(recall >= level - 1e-12, precision, 0.0).max(0) for level in np.linspace(0, 1, 11)]
    return np.where(right[-1] > 0, np.mean(points, 0), np.nan)


def mean_of_known(values: np.ndarray | list[float]) -> float:
    """Mean of what is a number, such as the scores of classes that occur; nan when nothing is."""
    return float("nan") if np.isnan(values).all() else float(np.nanmean(values))
