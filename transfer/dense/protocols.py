"""Classes for regions, from their token features: a linear head on soft targets, and k-means without labels.

`Labelled` has a row for each region: values (R, D), truth (R, C) the counted pixels of each class in the region.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment

from transfer.protocols.protocol import Fitted, Labelled, best_strength
from transfer.protocols.softmax import SoftmaxRegression, linear_scores

from .segmentation import confusion_of, mean_iou

if TYPE_CHECKING:
    from sklearn.cluster import KMeans


def thinned(regions: Labelled, most: int, seed: int) -> Labelled:
    """At most `most` regions that hold a counted pixel, drawn evenly: a bound on memory and time.

    ValueError when there is none.
    """
    rows = np.flatnonzero(regions.truth.sum(1) > 0)
    if not len(rows):
        raise ValueError(
            f"none of the {len(regions)} regions to fit on holds a counted pixel; give more training images"
        )
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
    return regions.rows(rows)


@dataclass(frozen=True, kw_only=True)
class DenseLinear:
    """Softmax regression on the class shares of each region, weighted by its counted pixels."""

    grid: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)
    max_regions: int = 200_000
    device: str = "cpu"
    seed: int = 0
    name: str = field(default="linear", init=False)

    def fit(self, train: Labelled, held_out: Labelled) -> list[Fitted]:
        """C by mean IoU on the held-out images, then all training images."""
        part, check = (thinned(regions, self.max_regions, self.seed) for regions in (train, held_out))
        scale = Scale.of(part)
        problem, checked = self._problem(part, scale), scale(check.values)
        c, (score,), start = best_strength(
            self.grid,
            lambda c, start: problem.solve(c, start, 500, 1e-5)[0],
            lambda weights: (mean_iou(confusion_of(check.truth, linear_scores(weights, checked).argmax(1))),),
            problem.zeros(),
        )
        whole = part.with_more(check)
        weights, converged = self._problem(whole, scale).solve(c, start, 500, 1e-5)
        chosen = {"C": c, "held_out_miou": score, "num_regions": len(whole), "converged": str(converged)}
        return [Fitted(predict=lambda values: linear_scores(weights, scale(values)), chosen=chosen)]

    def _problem(self, regions: Labelled, scale: "Scale") -> SoftmaxRegression:
        pixels = regions.truth.sum(1).astype(np.float64)
        shares = regions.truth / pixels[:, None]
        return SoftmaxRegression(scale(regions.values), shares, pixels / pixels.mean(), device=self.device)


@dataclass(frozen=True, kw_only=True)
class DenseKMeans:
    """As many clusters of region features as classes, named one to one on training images, never on test images."""

    repeats: int = 5
    max_regions: int = 30_000
    seed: int = 0
    name: str = field(default="k-means", init=False)

    def fit(self, train: Labelled, held_out: Labelled) -> list[Fitted]:
        """One clustering for each seed."""
        from sklearn.cluster import KMeans

        whole = thinned(train.with_more(held_out), self.max_regions, self.seed)
        scale, num_classes = Scale.of(whole), whole.num_classes
        x, pixels = scale(whole.values), whole.truth.sum(1).astype(np.float32)
        found = []
        for repeat in range(self.repeats):
            model = KMeans(num_classes, n_init=1, random_state=self.seed + repeat).fit(x, sample_weight=pixels)
            overlap = np.zeros((num_classes, num_classes))
            np.add.at(overlap, model.labels_, whole.truth)
            _, cluster_of = linear_sum_assignment(overlap.T, maximize=True)  # of each class
            predict = partial(_nearness, model, cluster_of, scale)
            found.append(Fitted(predict=predict, chosen={"clusters": num_classes, "num_regions": len(x)}))
        return found


@dataclass(frozen=True)
class Scale:
    """Features to zero mean and unit spread, fitted on training regions."""

    mean: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, regions: Labelled) -> "Scale":
        return cls(regions.values.mean(0), np.maximum(regions.values.std(0), 1e-6))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return (np.asarray(values, np.float32) - self.mean) / self.spread


def _nearness(model: "KMeans", cluster_of: np.ndarray, scale: Scale, values: np.ndarray) -> np.ndarray:
    """(R, C): minus the distance of each region's features to the cluster of each class."""
    return -model.transform(scale(values))[:, cluster_of]
