"""Values of label maps: which are classes, which stand for another one, and which are never counted."""

import numpy as np

from pipeline.errors import DataError, UsageError
from pipeline.shards.dataset import Split
from pipeline.shards.proof import read_proven

from .segmentation import IGNORE

Pairs = tuple[tuple[int, int], ...]  # (value in the files, value to read)


def read_labels(
    label_map: np.ndarray, num_classes: int, ignore: tuple[int, ...], map_labels: Pairs, place: str
) -> np.ndarray:
    """uint8 (h, w): values as `map_labels` says, then those to ignore as 255. Raises DataError for any other value
    outside 0..num_classes-1.
    """
    labels = _mapped(label_map, map_labels)
    labels[np.isin(labels, ignore)] = IGNORE
    wrong = labels[(labels >= num_classes) & (labels != IGNORE)]
    if len(wrong):
        raise DataError(
            f"{place}: label {int(wrong[0])} lies outside 0..{num_classes - 1} and is not ignored "
            f"({', '.join(map(str, (*ignore, IGNORE)))}). Name it in --ignore-labels if it means 'no class', or the "
            f"class that it stands for, such as --map-labels {int(wrong[0])}:1."
        )
    return labels


def label_counts(split: Split, map_labels: Pairs) -> np.ndarray:
    """int64 (256,): pixels of each value in all label maps of a split, after `map_labels`."""
    counts = np.zeros(256, np.int64)
    for number in range(split.num_samples):
        label_map = read_proven(split, number).label_map
        if label_map is not None:
            counts += np.bincount(_mapped(label_map, map_labels).ravel(), minlength=256)
    return counts


def numbered_classes(counts: np.ndarray, ignore: tuple[int, ...]) -> tuple[str, ...]:
    """Class names '0'..'n' for a task without a list: up to the largest value that counts."""
    return tuple(str(i) for i in range(max(_counted(counts, ignore), default=0) + 1))


def check_scored(counts: np.ndarray, num_classes: int, ignore: tuple[int, ...]) -> str | None:
    """What to say of test pixels that are never counted; None when all are.

    Raises UsageError when fewer than two classes are left: whatever is answered would then be right.
    """
    scored = [value for value in _counted(counts, ignore) if value < num_classes]
    there = [f"{value} ({counts[value] / counts.sum():.1%})" for value in np.flatnonzero(counts)]
    ignored = [value for value in {*ignore, IGNORE} if counts[value]]
    if len(scored) < 2:
        left = f"class {scored[0]} alone" if scored else "no class"
        of_them = f", of which {' and '.join(map(str, sorted(ignored)))} never count" if ignored else ""
        raise UsageError(
            f"the test label maps hold the values {', '.join(there[:8]) or 'none'}{of_them}: that leaves {left}, "
            f"and every answer would be right. If a value stands for a class, say which: --map-labels 255:1 reads "
            f"masks of 0 and 255. With --max-samples, use more."
        )
    if not ignored:
        return None
    shares = ", ".join(f"{value} ({counts[value] / counts.sum():.1%} of the test pixels)" for value in sorted(ignored))
    return f"labels that are never counted: {shares}"


def _mapped(label_map: np.ndarray, map_labels: Pairs) -> np.ndarray:
    table = np.arange(256, dtype=np.uint8)
    for value, read_as in map_labels:
        table[value] = read_as
    return table[label_map]


def _counted(counts: np.ndarray, ignore: tuple[int, ...]) -> list[int]:
    return [int(value) for value in np.flatnonzero(counts) if value not in (*ignore, IGNORE)]
