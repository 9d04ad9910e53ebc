"""The linear probe: multinomial logistic regression whose strength C is chosen on held-out training samples.

Protocol of Kornblith et al. 2019 (45 values of C, L-BFGS, refit on all training samples, test once).
"""

from dataclasses import dataclass, field

import numpy as np

from .protocol import Fitted, Labelled
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

    def __post_init__(self) -> None:
        if not self.grid or min(self.grid) <= 0:
            raise ValueError(f"the grid of C must hold positive values, not {self.grid}")

    def fit(self, train: Labelled, held_out: Labelled) -> list[Fitted]:
        """Every C from strong to weak, each started at the solution before it; the best on `held_out` is refitted."""
        problem = hard_problem(train, self.device)
        trials = []
        start = problem.zeros()
        for c in sorted(self.grid):
            start, _ = problem.solve(c, start, self.max_iterations, self.tolerance)
            accuracy, loss = _held_out_score(start, held_out)
            trials.append((accuracy, -loss, -c, start))
        best = max(trials, key=lambda trial: trial[:3])
        c = -best[2]
        whole = hard_problem(train.with_more(held_out), self.device)
        weights, converged = whole.solve(c, best[3], self.max_iterations, self.tolerance)
        chosen: dict[str, float | int | str] = {
            "C": c,
            "held_out_top1": best[0],
            "num_held_out": len(held_out),
            "converged": str(converged),
            **({"at_edge_of_grid": "yes"} if c in (min(self.grid), max(self.grid)) else {}),
        }
        return [Fitted(predict=lambda values: linear_scores(weights, values), chosen=chosen)]


def solve_logistic(
    data: Labelled, c: float, *, max_iterations: int = 1000, tolerance: float = 1e-6, device: str = "cpu"
) -> np.ndarray:
    """Weights float64 (D + 1, C), last row = intercept, of the minimum of C * sum(loss) + |W|^2 / 2."""
    problem = hard_problem(data, device)
    return problem.solve(c, problem.zeros(), max_iterations, tolerance)[0]


def hard_problem(data: Labelled, device: str) -> SoftmaxRegression:
    """One class per sample, every sample alike."""
    targets = np.zeros((len(data), data.num_classes))
    targets[np.arange(len(data)), data.class_ids] = 1.0
    return SoftmaxRegression(data.values, targets, device=device)


def _held_out_score(weights: np.ndarray, held_out: Labelled) -> tuple[float, float]:
    """Accuracy and mean log loss; the loss decides between equal accuracies."""
    scores = linear_scores(weights, held_out.values.astype(np.float64))
    peak = scores.max(1, keepdims=True)
    log_sum = np.log(np.exp(scores - peak).sum(1)) + peak[:, 0]
    right = scores[np.arange(len(scores)), held_out.class_ids]
    return float((scores.argmax(1) == held_out.class_ids).mean()), float((log_sum - right).mean())
