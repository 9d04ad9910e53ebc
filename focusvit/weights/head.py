"""A head to start a fine-tuning from: the linear probe on the frozen features (LP-FT, Kumar et al. 2022).

From a random head the first steps of fine-tuning move the pretrained weights to fit noise; from the probe's head the
training begins at the probe's accuracy.
"""

import torch
from torch import Tensor
from torch.nn import functional

STRENGTHS = (1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
"""weight decays that are tried, on standardised features"""
HELD_OUT = 5
"""every fifth sample chooses among them, by the loss: few right answers more or fewer say little on a small set"""


def probe_head(values: Tensor, class_ids: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Weight (C, D) and bias (C,), float32, of softmax regression on features (N, D) with classes int64 (N,).

    The decay is chosen on held-out samples (a class that has none there counts for nothing), then all are fitted.
    Random in nothing: the same features give the same head.
    """
    values = values.double()
    mean, std = values.mean(0), values.std(0, correction=0).clamp_min(1e-6)
    scaled = (values - mean) / std
    held = torch.arange(len(values)) % HELD_OUT == HELD_OUT - 1
    best = STRENGTHS[-1]
    if bool(held.any()):
        losses = {}
        for decay in STRENGTHS:
            weight, bias = _solved(scaled[~held], class_ids[~held], num_classes, decay)
            losses[decay] = float(functional.cross_entropy(scaled[held] @ weight.T + bias, class_ids[held]))
        best = min(STRENGTHS, key=lambda decay: losses[decay])
    weight, bias = _solved(scaled, class_ids, num_classes, best)
    return (weight / std).float(), (bias - (weight / std) @ mean).float()


def _solved(values: Tensor, class_ids: Tensor, num_classes: int, decay: float) -> tuple[Tensor, Tensor]:
    """The minimum of mean cross-entropy + decay / 2 |W|^2, by L-BFGS from zero."""
    weight = torch.zeros(num_classes, values.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(num_classes, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        loss = functional.cross_entropy(values @ weight.T + bias, class_ids) + decay / 2 * weight.square().sum()
        loss.backward()
        return loss

    solver.step(closure)  # type: ignore[arg-type]
    return weight.detach(), bias.detach()
