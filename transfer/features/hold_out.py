"""The part of the training split on which hyper-parameters are chosen: seeded, and with every class in it."""

import numpy as np


def hold_out(class_ids: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows to train on, rows to choose on), both sorted. Each class gives `share` of its samples, at least one.

    Class ids int64 (N,). A class with one sample keeps it for training. Raises ValueError when nothing can be held out.
    """
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(class_ids), bool)
    for class_id in np.unique(class_ids):
        rows = np.flatnonzero(class_ids == class_id)
        count = min(len(rows) - 1, max(1, round(share * len(rows))))
        chosen[rng.permutation(rows)[:count]] = True
    if not chosen.any():
        raise ValueError(f"none of {len(class_ids)} training samples can be held out: every class has a single one")
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def draw_parts(num_samples: int, sizes: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two disjoint draws of these sizes, sorted rows each. Raises ValueError when there are too few samples."""
    if sum(sizes) > num_samples:
        raise ValueError(f"{sizes[0]} + {sizes[1]} training samples are asked for and there are {num_samples}")
    order = np.random.default_rng(seed).permutation(num_samples)
    return np.sort(order[: sizes[0]]), np.sort(order[sizes[0] : sum(sizes)])
