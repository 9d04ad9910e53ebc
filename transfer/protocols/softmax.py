"""The solver of all linear probes: softmax regression with soft targets and sample weights, by scipy's L-BFGS.

The loss and its gradient are two matrix products in torch, so that they run where the features are.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

_SMALL = 20_000_000  # multiply-adds of one evaluation: below, a second thread saves nothing and is waited for


@contextmanager
def few_threads(work: int) -> Iterator[None]:
    """One thread inside when `work` (multiply-adds of a step) is small: on a busy machine each step of two threads
    ends with the later one, and hundreds of steps of microseconds become minutes.
    """
    before = torch.get_num_threads()
    if work >= _SMALL or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def linear_scores(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Scores (N, C) of features (N, D) under weights (D + 1, C) with the intercept as last row."""
    return values @ weights[:-1].astype(values.dtype) + weights[-1].astype(values.dtype)


class SoftmaxRegression:
    """Mean loss + |W|^2 / (2 C sum(weights)): the minimum of scikit-learn's objective, on a scale free of N.

    values (N, D); targets (N, classes), rows that sum to 1 (soft or hard); weights (N,) >= 0, or None for all alike.

    Solved in other coordinates: features centred (the free intercept takes the difference up), turned to their
    principal axes, and each axis scaled by its curvature, so that L-BFGS meets a round valley at every C. The minimum
    is the same; on badly scaled features it is found in tens of steps where the plain problem needs thousands.
    """

    def __init__(
        self, values: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None, *, device: str = "cpu"
    ) -> None:
        x = torch.from_numpy(np.array(values, np.float64)).to(device)
        given = np.ones(len(values)) if weights is None else weights.astype(np.float64)
        self.total = float(given.sum())
        share = torch.from_numpy(given / self.total).to(device)[:, None]
        self.share, self.targets = share, torch.from_numpy(targets.astype(np.float64)).to(device) * share
        self.num_classes = targets.shape[1]
        self.centre = (x * share).sum(0)
        x -= self.centre
        spread, self.axes = torch.linalg.eigh((x * share).T @ x)
        self.spread = spread.clamp_min(0.0)
        self.x = x @ self.axes

    def zeros(self) -> np.ndarray:
        return np.zeros((self.x.shape[1] + 1, self.num_classes))

    def solve(self, c: float, start: np.ndarray, max_iterations: int, tolerance: float) -> tuple[np.ndarray, bool]:
        """From weights (D + 1, C) to the weights at the minimum, and whether it was reached."""
        decay = 1.0 / (c * self.total)
        curvature = (1 - 1 / self.num_classes) / self.num_classes  # of the loss at equal shares
        scale = torch.rsqrt(curvature * self.spread + decay)
        scale = torch.cat([scale, scale.new_full((1,), curvature**-0.5)])[:, None]
        with few_threads(self.x.numel() * self.num_classes):
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
        loss = -(self.targets * log_shares).sum() + 0.5 * decay * weights[:-1].square().sum()
        error = log_shares.exp_().mul_(self.share).sub_(self.targets)
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
