"""Weighted nearest neighbours on normalised features: no training, so nothing to tune but k and T, which are logged.

Protocol of DINO/DINOv2: cosine similarity, the k most similar training samples vote with weight exp(sim / T).
"""

from dataclasses import dataclass

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

    def __post_init__(self) -> None:
        if self.k < 1 or self.temperature <= 0:
            raise ValueError(f"kNN needs k >= 1 and T > 0, not k = {self.k}, T = {self.temperature}")

    @property
    def name(self) -> str:
        return "knn"

    def fit(self, train: Labelled, held_out: Labelled) -> list[Fitted]:
        """The bank is train and held-out together: nothing is chosen."""
        whole = train.with_more(held_out)
        bank = _normalised(torch.from_numpy(whole.values).to(self.device))
        votes = torch.from_numpy(whole.class_ids).to(self.device)
        k = min(self.k, len(whole))

        def predict(values: np.ndarray) -> np.ndarray:
            return knn_scores(bank, votes, values, k=k, temperature=self.temperature, num_classes=whole.num_classes)

        return [Fitted(predict=predict, chosen={"k": k, "T": self.temperature})]


def knn_scores(
    bank: torch.Tensor, votes: torch.Tensor, values: np.ndarray, *, k: int, temperature: float, num_classes: int
) -> np.ndarray:
    """Scores float32 (N, C): the sum of exp(sim / T) over the k nearest that hold the class, up to one factor a row.

    bank float (M, D) with rows of length 1, votes int64 (M,), values float32 (N, D).
    """
    scores = np.empty((len(values), num_classes), np.float32)
    for start in range(0, len(values), _ROWS):
        rows = _normalised(torch.from_numpy(np.array(values[start : start + _ROWS])).to(bank.device))
        nearest, index = (rows @ bank.T).topk(k, dim=1)
        weight = ((nearest - nearest[:, :1]) / temperature).exp()  # relative to the nearest: exp cannot overflow
        part = torch.zeros(len(rows), num_classes, device=bank.device)
        part.scatter_add_(1, votes[index], weight)
        scores[start : start + _ROWS] = part.cpu().numpy()
    return scores


def _normalised(rows: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(rows.float(), dim=1)
