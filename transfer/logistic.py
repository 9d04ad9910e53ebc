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
        chosen: dict[str, float | int | str] = {
            "C": c,
            "held_out_top1": best[0],
            "num_held_out": len(held_out),
            "converged": str(converged),
        }
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
    """Mean loss + |W|^2 / (2 C N): the minimum of scikit-learn's objective, on a scale free of N.

    Solved in other coordinates: features centred (the free intercept takes the difference up), turned to their
    principal axes, and each axis scaled by its curvature, so that L-BFGS meets a round valley at every C. The minimum
    is the same; on badly scaled features it is found in tens of steps where the plain problem needs thousands.
    """

    def __init__(self, data: Labelled, device: str) -> None:
        x = torch.from_numpy(np.array(data.values, np.float64)).to(device)
        self.y = torch.from_numpy(data.class_ids).to(device)
        self.rows = torch.arange(len(self.y), device=device)
        self.num_classes = data.num_classes
        self.centre = x.mean(0)
        x -= self.centre
        spread, self.axes = torch.linalg.eigh(x.T @ x / len(x))
        self.spread = spread.clamp_min(0.0)
        self.x = x @ self.axes

    def zeros(self) -> np.ndarray:
        return np.zeros((self.x.shape[1] + 1, self.num_classes))

    def solve(self, c: float, start: np.ndarray, max_iterations: int, tolerance: float) -> tuple[np.ndarray, bool]:
        """From weights (D + 1, C) to the weights at the minimum, and whether it was reached."""
        decay = 1.0 / (c * len(self.y))
        curvature = (1 - 1 / self.num_classes) / self.num_classes  # of the loss at equal shares
        scale = torch.rsqrt(curvature * self.spread + decay)
        scale = torch.cat([scale, scale.new_full((1,), curvature**-0.5)])[:, None]
        found = minimize(
            lambda flat: self._loss_and_gradient(flat, decay, scale),
            (self._inward(start) / scale).cpu().numpy().ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": max_iterations, "gtol": tolerance, "ftol": 1e-13, "maxls": 50},
        )
        inner = torch.from_numpy(found.x.reshape(start.shape)).to(self.x.device) * scale
        return self._outward(inner), bool(found.success)

    def _loss_and_gradient(self, flat: np.ndarray, decay: float, scale: torch.Tensor) -> tuple[float, np.ndarray]:
        weights = torch.from_numpy(flat.reshape(-1, self.num_classes)).to(self.x.device) * scale
        scores = torch.addmm(weights[-1], self.x, weights[:-1])
        log_shares = torch.log_softmax(scores, 1)
        loss = -log_shares[self.rows, self.y].mean() + 0.5 * decay * weights[:-1].square().sum()
        error = log_shares.exp_()
        error[self.rows, self.y] -= 1.0
        error /= len(self.y)
        gradient = torch.empty_like(weights)
        torch.addmm(weights[:-1], self.x.T, error, beta=decay, out=gradient[:-1])
        gradient[-1] = error.sum(0)
        return float(loss), (gradient * scale).cpu().numpy().ravel()

    def _inward(self, weights: np.ndarray) -> torch.Tensor:
        outer = torch.from_numpy(weights).to(self.x.device)
        return torch.cat([self.axes.T @ outer[:-1], (outer[-1] + self.centre @ outer[:-1])[None]])

    def _outward(self, inner: torch.Tensor) -> np.ndarray:
        slopes = self.axes @ inner[:-1]
        return torch.cat([slopes, (inner[-1] - self.centre @ slopes)[None]]).cpu().numpy()


def _held_out_score(weights: np.ndarray, held_out: Labelled) -> tuple[float, float]:
    """Accuracy and mean log loss; the loss decides between equal accuracies."""
    scores = linear_scores(weights, held_out.values.astype(np.float64))
    peak = scores.max(1, keepdims=True)
    log_sum = np.log(np.exp(scores - peak).sum(1)) + peak[:, 0]
    right = scores[np.arange(len(scores)), held_out.class_ids]
    return float((scores.argmax(1) == held_out.class_ids).mean()), float((log_sum - right).mean())
