"""Boundary F1: how well the borders of a painted prediction lie on the borders of the truth.

Definition of Csurka et al. 2013 (BMVC, "What is a good evaluation measure for semantic segmentation?"), over the
borders of all classes: a border pixel is matched when one of the other map lies within 0.75 % of the diagonal.
"""

import math

import cv2
import numpy as np

TOLERANCE = 0.0075  # of the image diagonal, the paper's value


def class_borders(label_map: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """bool (h, w): a counted pixel whose right or lower neighbour is counted and has another label."""
    border = np.zeros(label_map.shape, bool)
    across = (label_map[:, :-1] != label_map[:, 1:]) & counted[:, :-1] & counted[:, 1:]
    down = (label_map[:-1] != label_map[1:]) & counted[:-1] & counted[1:]
    border[:, :-1] |= across
    border[:-1] |= down
    return border


def boundary_f1(predicted: np.ndarray, truth: np.ndarray, num_classes: int) -> float:
    """F1 of one image, maps (h, w); labels of `truth` from num_classes on are left out. nan when no border exists."""
    counted = truth < num_classes
    mine, true = class_borders(predicted, counted), class_borders(truth, counted)
    if not mine.any() and not true.any():
        return math.nan
    if not mine.any() or not true.any():
        return 0.0
    reach = TOLERANCE * math.hypot(*truth.shape)
    precision = float((distance_to(true)[mine] <= reach).mean())
    recall = float((distance_to(mine)[true] <= reach).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def distance_to(border: np.ndarray) -> np.ndarray:
    """float32 (h, w): Euclidean distance in pixels to the nearest True."""
    return cv2.distanceTransform((~border).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
