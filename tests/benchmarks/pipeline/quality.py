"""How well superpixels follow ground truth: the four usual figures, over several human segmentations of an image."""

from dataclasses import dataclass

import cv2
import numpy as np

TOLERANCE_PX = 2  # a true boundary pixel counts as found within this distance (a square window), as in the literature


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Figures of one superpixel map, each in [0, 1] except under-segmentation, which can pass 1."""

    achievable_accuracy: float
    """ASA: pixels that are right when each superpixel takes the true segment it overlaps most. Higher is better."""
    under_segmentation: float
    """UE (Neubert and Protzel 2012): pixels that leak, `min(inside, outside)` per true segment. Lower is better."""
    boundary_recall: float
    """BR: true boundary pixels with a superpixel boundary within 2 pixels. Higher is better."""
    explained_variation: float
    """EV (Moore et al. 2008): share of the colour variance that superpixel means explain. Higher is better."""


def measure(superpixels: np.ndarray, rgb: np.ndarray, truths: list[np.ndarray]) -> Quality:
    """Mean over `truths`, integer (H, W) each, of the figures of `superpixels`, integer (H, W), for `rgb` (H, W, 3)."""
    found = cv2.dilate(boundaries(superpixels).astype(np.uint8), np.ones((2 * TOLERANCE_PX + 1,) * 2, np.uint8)) > 0
    rows = [(*overlap_figures(superpixels, truth), float(found[boundaries(truth)].mean())) for truth in truths]
    accuracy, leak, recall = np.mean(rows, axis=0)
    return Quality(
        achievable_accuracy=float(accuracy),
        under_segmentation=float(leak),
        boundary_recall=float(recall),
        explained_variation=explained_variation(superpixels, rgb),
    )


def boundaries(labels: np.ndarray) -> np.ndarray:
    """bool (H, W): pixels whose right or lower neighbour has another label."""
    edge = np.zeros(labels.shape, bool)
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edge[:-1] |= labels[:-1] != labels[1:]
    return edge


def overlap_figures(superpixels: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """(achievable segmentation accuracy, under-segmentation error) of one pair of label images."""
    num_truths = int(truth.max()) + 1
    joint = np.bincount((superpixels.astype(np.int64) * num_truths + truth).ravel())
    joint = np.pad(joint, (0, -len(joint) % num_truths)).reshape(-1, num_truths)  # pixels per (superpixel, segment)
    outside = joint.sum(1, keepdims=True) - joint
    return float(joint.max(1).sum() / truth.size), float(np.minimum(joint, outside).sum() / truth.size)


def explained_variation(superpixels: np.ndarray, rgb: np.ndarray) -> float:
    """Variance between superpixel means over the variance between pixels (1 for an image of one colour)."""
    ids, colours = superpixels.ravel(), rgb.reshape(-1, 3)
    counts = np.bincount(ids)
    sums = np.stack([np.bincount(ids, weights=channel) for channel in colours.T], axis=1)
    present = counts > 0
    offset = (sums.sum(0) ** 2).sum() / len(ids)  # sums of squares less this are variances
    between = (sums[present] ** 2 / counts[present, None]).sum() - offset
    total = float(np.einsum("ij,ij->", colours, colours, dtype=np.int64)) - offset
    return float(between / total) if total > 0 else 1.0
