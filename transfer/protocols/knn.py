"""Weighted nearest neighbours on normalised features: no training, so nothing to tune but k and T, which are logged.

Protocol of DINO/DINOv2: cosine similarity, the k most similar training samples vote with weight exp(sim / T).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from .protocol import Fitted, Labelled

_ROWS = 1024  # test rows at a time: memory stays flat however many there are


@dataclass(frozen=True, kw_only=True)
class Knn:
    """k = 20 and T = 0.07 are DINOv2's values for small sets; numbers at other k or T do not compare."""

    k: int = 20
    temperature: float = 0.07
    device: str = "cpu"
    name: ClassVar[str] = "knn"

    def fit(self, train: Labelled, held_out: Labelled) -> list[Fitted]:
        """The bank is train and held-out together: nothing is chosen."""
        whole = train.with_more(held_out)
        k = min(self.k, len(whole))

        def predict(values: np.ndarray) -> np.ndarray:
            weight, index = neighbours(whole.values, values, k=k, temperature=self.temperature, device=self.device)
            if whole.truth.ndim == 2:  # each neighbour votes for all its classes
                return (weight[:, :, None] * whole.truth[index]).sum(1) / weight.sum(1, keepdims=True)
            scores = np.zeros((len(values), whole.num_classes), np.float32)
            np.add.at(scores, (np.arange(len(values))[:, None], whole.truth[index]), weight)
            return scores

        return [Fitted(predict=predict, chosen={"k": k, "T": self.temperature})]


def neighbours(
    bank: np.ndarray, values: np.ndarray, *, k: int, temperature: float, device: str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """The k most similar rows of `bank` (M, D) for each of `values` (N, D), nearest first.

    Returns exp((similarity - largest) / T) float32 (N, k), relative to the nearest so that it cannot overflow, and the
    rows int64 (N, k).
    """
    normal_bank = _normalised(torch.from_numpy(np.array(bank)).to(device))
    weights, indices = [], []
    for start in range(0, len(values), _ROWS):
        rows = _normalised(torch.from_numpy(np.array(values[start : start + _ROWS])).to(device))
        nearest, index = (rows @ normal_bank.T).topk(k, dim=1)
        weights.append(((nearest - nearest[:, :1]) / temperature).exp().cpu().numpy())
        indices.append(index.cpu().numpy())
    return np.concatenate(weights), np.concatenate(indices)


def _normalised(rows: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(rows.float(), dim=1)
