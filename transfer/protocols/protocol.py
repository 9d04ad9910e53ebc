"""What every protocol is: something fitted on labelled features that then scores unseen ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol as Interface

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Features of some samples with their classes. values float32 (N, D), class_ids int64 (N,) in 0..num_classes-1."""

    values: np.ndarray
    class_ids: np.ndarray
    num_classes: int

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or len(self.values) != len(self.class_ids):
            raise ValueError(f"features {self.values.shape} and {len(self.class_ids)} class ids do not belong together")
        if not len(self.values):
            raise ValueError("there are no labelled samples")
        low, high = int(self.class_ids.min()), int(self.class_ids.max())
        if low < 0 or high >= self.num_classes:
            raise ValueError(f"class ids {low}..{high} lie outside 0..{self.num_classes - 1}")

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, index: np.ndarray) -> "Labelled":
        """The samples at `index`, in that order."""
        return Labelled(values=self.values[index], class_ids=self.class_ids[index], num_classes=self.num_classes)

    def with_more(self, more: "Labelled") -> "Labelled":
        """These samples and then `more`."""
        values = np.concatenate([self.values, more.values])
        class_ids = np.concatenate([self.class_ids, more.class_ids])
        return Labelled(values=values, class_ids=class_ids, num_classes=self.num_classes)


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """One fitted classifier. `predict` maps features (N, D) to scores (N, C); only their order within a row counts."""

    predict: Callable[[np.ndarray], np.ndarray]
    chosen: dict[str, float | int | str] = field(default_factory=dict)
    """The hyper-parameters in use and how they came about; they are logged beside the number."""
    variant: str = ""
    """Fitted classifiers of one variant (for example '5-shot') are repeats and become one row with their spread."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A variant that this data set cannot give, and why. It is listed; the other variants go on."""

    variant: str
    reason: str


class Protocol(Interface):
    """A way to measure features. `fit` never sees a test sample: that is what makes 'test touched once' hold."""

    @property
    def name(self) -> str: ...

    def fit(self, train: Labelled, held_out: Labelled) -> Sequence[Fitted | Skipped]:
        """Choose on `held_out` when there is something to choose, then fit on both."""
        ...
