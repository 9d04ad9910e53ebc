"""The optimizers follow their formulas."""

import pytest
import torch

from focusvit.train.optim import OptimConfig, build_optimizer


def one_step(config: OptimConfig, gradient: float, start: float = 2.0) -> float:
    """A 2 x 2 matrix of equal entries after one step with this gradient in each entry."""
    model = torch.nn.Linear(2, 2, bias=False)
    torch.nn.init.constant_(model.weight, start)
    optimizer = build_optimizer(model, config)
    model.weight.grad = torch.full((2, 2), gradient)
    optimizer.step()
    assert float(model.weight.detach().std()) == 0
    return float(model.weight.detach()[0, 0])


def test_adamw_and_sgd_follow_their_formulas() -> None:
    adamw = OptimConfig(name="adamw", lr=0.1, weight_decay=0.5)
    assert one_step(adamw, 3.0) == pytest.approx(2.0 * (1 - 0.1 * 0.5) - 0.1)  # Adam's first step has size lr
    sgd = OptimConfig(name="sgd", lr=0.1, weight_decay=0.5, momentum=0.9)
    gradient = 3.0 + 0.5 * 2.0
    assert one_step(sgd, 3.0) == pytest.approx(2.0 - 0.1 * (gradient + 0.9 * gradient))  # Nesterov looks ahead
