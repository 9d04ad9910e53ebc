"""Many linear heads trained by SGD at once: every learning rate on every choice of features, the best one kept.

After DINOv2's linear evaluation: 13 learning rates x 4 representations = 52 heads, SGD with momentum 0.9, no weight
decay, cosine to zero, one pass over the data feeds them all. The best head on held-out samples is scored on the test.
Here the pass runs over cached features of the fixed view (no augmentation), and the four representations are raw and
standardised features, each alone and with their squares: what cached features allow.
"""

from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from .protocol import Fitted, Labelled

LEARNING_RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)
REPRESENTATIONS = ("raw", "raw, squares", "standard", "standard, squares")


@dataclass(frozen=True, kw_only=True)
class LinearHeads:
    """Learning rates are for a global batch of 256 and scale with it, as published."""

    learning_rates: tuple[float, ...] = LEARNING_RATES
    steps: int = 2000
    batch: int = 256
    momentum: float = 0.9
    repeats: int = 3
    """Final trainings of the chosen head, each with its own start and order: their spread is the row's interval."""
    device: str = "cpu"
    seed: int = 0
    name: str = field(default="heads", init=False)

    def fit(self, train: Labelled, held_out: Labelled) -> list[Fitted]:
        """All heads in one pass over `train`, the best on `held_out`, and that one again on both, `repeats` times."""
        scale = _Scale(train.values)
        rates = np.repeat(np.array(self.learning_rates), len(REPRESENTATIONS))
        kinds = np.tile(np.arange(len(REPRESENTATIONS)), len(self.learning_rates))
        weights = self._train(train, scale, rates, kinds)
        accuracy = [
            float((_scores(weights[h], kinds[h], scale, held_out.values).argmax(1) == held_out.truth).mean())
            for h in range(len(rates))
        ]
        best = int(np.argmax(accuracy))
        whole, one = train.with_more(held_out), slice(best, best + 1)
        finals = [self._train(whole, scale, rates[one], kinds[one], seed)[0] for seed in range(self.repeats)]
        chosen = {
            "lr": float(rates[best]), "features": REPRESENTATIONS[kinds[best]], "num_heads": len(rates),
            "held_out_top1": accuracy[best], "steps": self.steps,
        }  # fmt: skip
        kind = int(kinds[best])
        return [Fitted(predict=partial(_scores, final, kind, scale), chosen=chosen) for final in finals]

    def _train(
        self, data: Labelled, scale: "_Scale", rates: np.ndarray, kinds: np.ndarray, repeat: int = 0
    ) -> np.ndarray:
        """float32 (H, 2 D + 1, C): SGD on H heads together. Heads without squares keep zeros there."""
        width, num_heads = data.values.shape[1], len(rates)
        values, class_ids = torch.from_numpy(np.array(data.values)), torch.from_numpy(data.truth)
        lr = torch.from_numpy(rates * self.batch / 256).float().to(self.device)[:, None, None]
        mask = torch.ones(num_heads, 2 * width + 1, 1)
        mask[torch.from_numpy(kinds % 2 == 0), width : 2 * width] = 0
        mask = mask.to(self.device)
        standard = torch.from_numpy(kinds >= 2).to(self.device)
        generator = torch.Generator().manual_seed(self.seed + repeat)
        weights = 0.01 * torch.randn(1, 2 * width + 1, data.num_classes, generator=generator)
        weights = (weights.to(self.device) * mask).contiguous()
        speed = torch.zeros_like(weights)
        for step in range(self.steps):
            rows = torch.randint(0, len(values), (self.batch,), generator=generator)
            raw, scaled = scale.both(values[rows], self.device)
            x = torch.where(standard[:, None, None], scaled, raw) * mask.transpose(1, 2)  # (H, B, 2 D + 1)
            error = torch.softmax(torch.bmm(x, weights), 2)
            error[:, torch.arange(self.batch), class_ids[rows].to(self.device)] -= 1
            gradient = torch.bmm(x.transpose(1, 2), error) / self.batch
            speed.mul_(self.momentum).add_(gradient)
            weights -= lr * (0.5 + 0.5 * float(np.cos(np.pi * step / self.steps))) * speed
        return torch.nan_to_num(weights).cpu().numpy()


class _Scale:
    """Features raw and standardised, each followed by squares and a constant 1."""

    def __init__(self, values: np.ndarray) -> None:
        self.mean = torch.from_numpy(values.mean(0, dtype=np.float64)).float()
        self.spread = torch.from_numpy(np.maximum(values.std(0, dtype=np.float64), 1e-6)).float()

    def both(self, values: torch.Tensor, device: str) -> tuple[torch.Tensor, torch.Tensor]:
        scaled = (values - self.mean) / self.spread
        one = torch.ones(len(values), 1)
        return tuple(torch.cat([v, v**2, one], 1)[None].to(device) for v in (values, scaled))  # type: ignore[return-value]


def _scores(weights: np.ndarray, kind: int, scale: _Scale, values: np.ndarray) -> np.ndarray:
    raw, scaled = scale.both(torch.from_numpy(np.array(values, np.float32)), "cpu")
    return (scaled if kind >= 2 else raw)[0].numpy() @ weights
