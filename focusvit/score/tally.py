"""Counts of right answers over a split, in a form that several ranks can add up and that proves itself complete."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional

from .intervals import wilson


@dataclass
class Tally:
    """Sums over samples, so that parts counted by several ranks add up to the whole in any order."""

    num_classes: int
    num_samples: int
    confusion: np.ndarray = field(init=False)  # int64 (C, C): true class, predicted class
    times_seen: np.ndarray = field(init=False)  # int64 (N,)
    # Of this rank's samples; the others stay at -1 and False.
    answers: np.ndarray = field(init=False)  # int64 (N,): the predicted class
    right: np.ndarray = field(init=False)  # bool (N,)
    num_top5: float = 0.0
    loss_sum: float = 0.0

    def __post_init__(self) -> None:
        self.confusion = np.zeros((self.num_classes, self.num_classes), np.int64)
        self.times_seen = np.zeros(self.num_samples, np.int64)
        self.answers = np.full(self.num_samples, -1, np.int64)
        self.right = np.zeros(self.num_samples, np.bool_)

    def add(self, logits: torch.Tensor, class_ids: torch.Tensor, sample_ids: torch.Tensor) -> None:
        """Count one batch: logits float (B, C), class ids int64 (B,) in 0..C-1, sample ids int64 (B,) in 0..N-1."""
        logits = logits.float()
        if len(class_ids) and not 0 <= int(class_ids.min()) <= int(class_ids.max()) < self.num_classes:
            seen = f"{int(class_ids.min())}..{int(class_ids.max())}"
            raise ValueError(f"class ids {seen} lie outside 0..{self.num_classes - 1}; -1 means a sample without class")
        self.loss_sum += float(functional.cross_entropy(logits, class_ids, reduction="sum"))
        best = logits.topk(min(5, self.num_classes), dim=1).indices
        self.num_top5 += float((best == class_ids[:, None]).sum())
        pairs = class_ids * self.num_classes + best[:, 0]
        counted = torch.bincount(pairs, minlength=self.num_classes**2).reshape(self.num_classes, -1)
        self.confusion += counted.cpu().numpy()
        np.add.at(self.times_seen, sample_ids.cpu().numpy(), 1)
        self.answers[sample_ids.cpu().numpy()] = best[:, 0].cpu().numpy()
        self.right[sample_ids.cpu().numpy()] = (best[:, 0] == class_ids).cpu().numpy()

    def all_reduce(self, add_up: Callable[[np.ndarray], np.ndarray]) -> None:
        """Make every rank hold the sum of all ranks. `add_up` sums one float64 vector over the ranks."""
        sums = add_up(
            np.concatenate([[self.num_top5, self.loss_sum], self.times_seen, self.confusion.ravel()]).astype(np.float64)
        )
        self.num_top5, self.loss_sum = float(sums[0]), float(sums[1])
        self.times_seen = sums[2 : 2 + self.num_samples].astype(np.int64)
        self.confusion = sums[2 + self.num_samples :].astype(np.int64).reshape(self.confusion.shape)

    def metrics(self) -> dict[str, float]:
        """top1, top5, loss, num_samples. AssertionError unless each sample was counted exactly once."""
        wrong = np.flatnonzero(self.times_seen != 1)
        if len(wrong):
            raise AssertionError(
                f"{len(wrong)} of {self.num_samples} samples were not counted exactly once; "
                f"sample {wrong[0]} was counted {self.times_seen[wrong[0]]} times"
            )
        total = max(1, self.num_samples)
        top1 = float(np.trace(self.confusion)) / total
        return {
            "top1": top1,
            "top5": self.num_top5 / total,
            "loss": self.loss_sum / total,
            "num_samples": float(self.num_samples),
        }

    def against(self, other: "Tally") -> tuple[float, float, float]:
        """Of two models on the same samples, one rank each: the difference of their top-1, half of its 95 % interval
        (paired: only samples that one of them gets right count), and the share of samples with the same answer.

        Half a sample more in each of the four cells (Agresti and Min 2005): without it the interval is empty when
        nothing changed, and holds the truth far less than 95 % of the time when little did.
        """
        if other is self:
            return 0.0, 0.0, 1.0
        gained, lost = int((self.right & ~other.right).sum()), int((~self.right & other.right).sum())
        total = self.num_samples + 2
        spread = ((gained + lost + 1) / total - ((gained - lost) / total) ** 2) / total
        off = (gained - lost) / max(1, self.num_samples)
        return off, 1.96 * spread**0.5, float((self.answers == other.answers).mean())

    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of top-1."""
        return wilson(int(np.trace(self.confusion)), self.num_samples)
