"""The linear probe: multinomial logistic regression whose strength C is chosen on held-out training samples.

Protocol of Kornblith et al. 2019 (45 values of C, L-BFGS, refit on all training samples, test once).
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.special import log_softmax

from .multilabel import average_precision, mean_of_known
from .protocol import Fitted, Labelled, best_strength
from .softmax import SoftmaxRegression, linear_scores

FULL_GRID = tuple(float(10**x) for x in np.linspace(-6, 5, 45))
QUICK_GRID = FULL_GRID[8::4]  # every fourth value from 1e-4 to 1e5: 10 values


@dataclass(frozen=True, kw_only=True)
class Logistic:
    """C is scikit-learn's: the sum of the losses is weighted by C against half the squared norm of the weights."""

    grid: tuple[float, ...] = QUICK_GRID
    max_iterations: int = 1000
    tolerance: float = 1e-6
    """Largest entry of the gradient of the mean loss at which a solution counts as found."""
    device: str = "cpu"
    name: str = field(default="logistic", init=False)

    def fit(self, train: Labelled, held_out: Labelled) -> list[Fitted]:
        """Every C from strong to weak, each started at the solution before it; the best on `held_out` is refitted."""
        problem = hard_problem(train, self.device)
        c, (top1, _), start = best_strength(
            self.grid,
            lambda c, start: problem.solve(c, start, self.max_iterations, self.tolerance)[0],
            lambda weights: _held_out_score(weights, held_out),
            problem.zeros(),
        )
        whole = hard_problem(train.with_more(held_out), self.device)
        weights, converged = whole.solve(c, start, self.max_iterations, self.tolerance)
        chosen = {"C": c, "held_out_top1": top1, "num_held_out": len(held_out), "converged": str(converged)}
        chosen |= {"at_edge_of_grid": "yes"} if c in (min(self.grid), max(self.grid)) else {}
        return [Fitted(predict=lambda values: linear_scores(weights, values), chosen=chosen)]


@dataclass(frozen=True, kw_only=True)
class OneAgainstRest:
    """One binary logistic regression per class, for samples that show any number of classes; one C for all, by mean
    AP on the held-out samples."""

    grid: tuple[float, ...] = QUICK_GRID
    device: str = "cpu"
    name: str = field(default="logistic", init=False)

    def fit(self, train: Labelled, held_out: Labelled) -> list[Fitted]:
        problems = self._problems(train)
        c, (score,), starts = best_strength(
            self.grid,
            lambda c, starts: _solved(problems, c, starts),
            lambda starts: (mean_of_known(average_precision(_margins(starts, held_out.values), held_out.truth)),),
            [problem.zeros() for problem in problems],
        )
        solved = _solved(self._problems(train.with_more(held_out)), c, starts)
        chosen = {"C": c, "held_out_map": score, "num_held_out": len(held_out)}
        return [Fitted(predict=lambda values: _margins(solved, values), chosen=chosen)]

    def _problems(self, data: Labelled) -> list[SoftmaxRegression]:
        """One problem per class, in the same turned coordinates."""
        shown = data.truth.T.astype(np.float64)
        return [SoftmaxRegression(data.values, np.stack([1 - one, one], 1), device=self.device) for one in shown]


def _solved(problems: list[SoftmaxRegression], c: float, starts: list[np.ndarray]) -> list[np.ndarray]:
    return [problem.solve(c, start, 500, 1e-6)[0] for problem, start in zip(problems, starts)]


def _margins(weights: list[np.ndarray], values: np.ndarray) -> np.ndarray:
    scores = [linear_scores(one, values.astype(np.float64)) for one in weights]
    return np.stack([one[:, 1] - one[:, 0] for one in scores], 1)


def hard_problem(data: Labelled, device: str) -> SoftmaxRegression:
    """One class per sample, every sample alike."""
    targets = np.zeros((len(data), data.num_classes))
    targets[np.arange(len(data)), data.truth] = 1.0
    return SoftmaxRegression(data.values, targets, device=device)


def _held_out_score(weights: np.ndarray, held_out: Labelled) -> tuple[float, float]:
    """Accuracy and mean log share of the right class, which decides between equal accuracies."""
    scores = linear_scores(weights, held_out.values.astype(np.float64))
    right = log_softmax(scores, 1)[np.arange(len(scores)), held_out.truth]
    return float((scores.argmax(1) == held_out.truth).mean()), float(right.mean())
