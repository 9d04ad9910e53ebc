"""The linear probe: multinomial logistic regression whose strength C is chosen on held-out training samples.

Protocol of Kornblith et al. 2019 (45 values of C, L-BFGS, refit on all training samples, test once). The solver is
scipy's L-BFGS; the loss and its gradient are two matrix products in torch, so that they run where the features are.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.optimize import minimize

from .protocol import Fitted, Labelled

FULL_GRID = tuple(float(10**x) for x in np.linspace(-6, 5, 45))
QUICK_GRID = FULL_GRID[8:40:4]  # every fourth value between 1e-4 and 1e4: 8 values


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
        problem = _Problem(train, self.device)
        trials = []
        start = problem.zeros()
        for c in sorted(self.grid):
            start, _ = problem.solve(c, start, self.max_iterations, self.tolerance)
            accuracy, loss = _held_out_score(start, held_out)
            trials.append((accuracy, -loss, -c, start))
        best = max(trials, key=lambda trial: trial[:3])
        c = -best[2]
        whole = _Problem(train.with_more(held_out), self.device)
        weights, converged = whole.solve(c, best[3], self.max_iterations, self.tolerance)
        chosen = {"C": c, "held_out_top1": best[0], "num_held_out": len(held_out), "converged": str(converged)}
        return [Fitted(predict=lambda values: linear_scores(weights, values), chosen=chosen)]


def solve_logistic(
    data: Labelled, c: float, *, max_iterations: int = 1000, tolerance: float = 1e-6, device: str = "cpu"
) -> np.ndarray:
    """Weights float64 (D + 1, C), last row = intercept, of the minimum of C * sum(loss) + |W|^2 / 2."""
    problem = _Problem(data, device)
    return problem.solve(c, problem.zeros(), max_iterations, tolerance)[0]


def linear_scores(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Scores (N, C) of features (N, D) under weights (D + 1, C) with the intercept as last row."""
    return values @ weights[:-1].astype(values.dtype) + weights[-1].astype(values.dtype)


class _Problem:
    """Mean loss + |W|^2 / (2 C N), which has the minimum of scikit-learn's objective and a scale free of N."""

    def __init__(self, data: Labelled, device: str) -> None:
        self.x = torch.from_numpy(np.ascontiguousarray(data.values)).to(device, torch.float64)
        self.y = torch.from_numpy(data.class_ids).to(device)
        self.rows = torch.arange(len(self.y), device=device)
        self.num_classes = data.num_classes

    def zeros(self) -> np.ndarray:
        return np.zeros((self.x.shape[1] + 1, self.num_classes))

    def solve(self, c: float, start: np.ndarray, max_iterations: int, tolerance: float) -> tuple[np.ndarray, bool]:
        decay = 1.0 / (c * len(self.y))
        found = minimize(
            lambda flat: self._loss_and_gradient(flat, decay),
            start.ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": max_iterations, "gtol": tolerance, "ftol": 1e-12, "maxls": 50},
        )
        return found.x.reshape(start.shape), bool(found.success)

    def _loss_and_gradient(self, flat: np.ndarray, decay: float) -> tuple[float, np.ndarray]:
        weights = torch.from_numpy(flat.reshape(-1, self.num_classes)).to(self.x.device)
        scores = torch.addmm(weights[-1], self.x, weights[:-1])
        log_shares = torch.log_softmax(scores, 1)
        loss = -log_shares[self.rows, self.y].mean() + 0.5 * decay * weights[:-1].square().sum()
        error = log_shares.exp_()
        error[self.rows, self.y] -= 1.0
        error /= len(self.y)
        gradient = torch.empty_like(weights)
        torch.addmm(weights[:-1], self.x.T, error, beta=decay, out=gradient[:-1])
        gradient[-1] = error.sum(0)
        return float(loss), gradient.cpu().numpy().ravel()


def _held_out_score(weights: np.ndarray, held_out: Labelled) -> tuple[float, float]:
    """Accuracy and mean log loss; the loss decides between equal accuracies."""
    scores = linear_scores(weights, held_out.values.astype(np.float64))
    peak = scores.max(1, keepdims=True)
    log_sum = np.log(np.exp(scores - peak).sum(1)) + peak[:, 0]
    right = scores[np.arange(len(scores)), held_out.class_ids]
    return float((scores.argmax(1) == held_out.class_ids).mean()), float((log_sum - right).mean())
