"""Classes for regions, from their token features: a linear head on soft targets, and k-means without labels.

rows: one per region. values (R, D), histograms (R, C): counted pixels of each class in the region, the soft target.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from transfer.protocols.softmax import SoftmaxRegression, linear_scores

from .segmentation import confusion_of, mean_iou

Labels = Callable[[np.ndarray], np.ndarray]  # features (R, D) -> class of each region (R,)


@dataclass(frozen=True, kw_only=True)
class Regions:
    """The regions of some images."""

    values: np.ndarray
    histograms: np.ndarray

    def thinned(self, most: int, seed: int) -> "Regions":
        """At most `most` regions that hold a counted pixel, drawn evenly: a bound on memory and time.

        ValueError when there is none.
        """
        rows = np.flatnonzero(self.histograms.sum(1) > 0)
        if not len(rows):
            raise ValueError(
                f"none of the {len(self.histograms)} regions to fit on holds a counted pixel; give more training images"
            )
        if len(rows) > most:
            rows = np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
        return Regions(values=np.asarray(self.values[rows], np.float32), histograms=self.histograms[rows])


@dataclass(frozen=True, kw_only=True)
class FittedDense:
    """A labelling of regions. Several of one protocol are repeats."""

    predict: Labels
    chosen: dict[str, float | int | str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DenseLinear:
    """Softmax regression on the class shares of each region, weighted by its counted pixels."""

    grid: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)
    max_regions: int = 200_000
    device: str = "cpu"
    seed: int = 0
    name: str = field(default="linear", init=False)

    def fit(self, train: Regions, held_out: Regions) -> list[FittedDense]:
        """C by mean IoU on the held-out images, then all training images."""
        part, check = train.thinned(self.max_regions, self.seed), held_out.thinned(self.max_regions, self.seed)
        scale = Scale.of(part)
        problem = self._problem(part, scale)
        start = problem.zeros()
        trials = []
        for c in sorted(self.grid):
            start, _ = problem.solve(c, start, 500, 1e-5)
            predicted = linear_scores(start, scale(check.values)).argmax(1)
            trials.append((mean_iou(confusion_of(check.histograms, predicted)), -c, start))
        score, minus_c, start = max(trials, key=lambda trial: trial[:2])
        whole = Regions(
            values=np.concatenate([part.values, check.values]),
            histograms=np.concatenate([part.histograms, check.histograms]),
        )
        weights, converged = self._problem(whole, scale).solve(-minus_c, start, 500, 1e-5)
        chosen: dict[str, float | int | str] = {
            "C": -minus_c,
            "held_out_miou": score,
            "num_regions": len(whole.values),
            "converged": str(converged),
        }
        return [FittedDense(predict=lambda v: linear_scores(weights, scale(v)).argmax(1), chosen=chosen)]

    def _problem(self, regions: Regions, scale: "Scale") -> SoftmaxRegression:
        pixels = regions.histograms.sum(1).astype(np.float64)
        shares = regions.histograms / pixels[:, None]
        return SoftmaxRegression(scale(regions.values), shares, pixels / pixels.mean(), device=self.device)


@dataclass(frozen=True, kw_only=True)
class DenseKMeans:
    """As many clusters of region features as classes, named one to one on training images, never on test images."""

    repeats: int = 5
    max_regions: int = 30_000
    seed: int = 0
    name: str = field(default="k-means", init=False)

    def fit(self, train: Regions, held_out: Regions) -> list[FittedDense]:
        """One clustering for each seed."""
        from sklearn.cluster import KMeans

        whole = Regions(
            values=np.concatenate([train.values, held_out.values]),
            histograms=np.concatenate([train.histograms, held_out.histograms]),
        ).thinned(self.max_regions, self.seed)
        scale = Scale.of(whole)
        num_classes = whole.histograms.shape[1]
        x, pixels = scale(whole.values), whole.histograms.sum(1).astype(np.float32)
        found = []
        for repeat in range(self.repeats):
            model = KMeans(num_classes, n_init=1, random_state=self.seed + repeat).fit(x, sample_weight=pixels)
            overlap = np.zeros((num_classes, num_classes))
            np.add.at(overlap, model.labels_, whole.histograms)
            clusters, classes = linear_sum_assignment(overlap, maximize=True)
            names = np.zeros(num_classes, np.int64)
            names[clusters] = classes
            chosen: dict[str, float | int | str] = {"clusters": num_classes, "num_regions": len(x)}
            found.append(FittedDense(predict=_Clusters(model.cluster_centers_, names, scale), chosen=chosen))
        return found


@dataclass(frozen=True)
class Scale:
    """Features to zero mean and unit spread, fitted on training regions."""

    mean: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, regions: Regions) -> "Scale":
        return cls(regions.values.mean(0), np.maximum(regions.values.std(0), 1e-6))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return (np.asarray(values, np.float32) - self.mean) / self.spread


@dataclass(frozen=True)
class _Clusters:
    centres: np.ndarray
    names: np.ndarray
    scale: Scale

    def __call__(self, values: np.ndarray) -> np.ndarray:
        x = self.scale(values)
        squared = (x**2).sum(1, keepdims=True) - 2 * x @ self.centres.T + (self.centres**2).sum(1)
        return self.names[squared.argmin(1)]
