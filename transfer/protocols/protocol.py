"""What every protocol is: something fitted on labelled features that then scores unseen ones."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from typing import Protocol as Interface

import numpy as np

Solution = TypeVar("Solution")


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Features of some samples with what they show. values float32 (N, D); truth int64 (N,), a class id in
    0..num_classes-1 each; or (N, C), bool where a sample shows any number of classes, counted pixels for a region.
    """

    values: np.ndarray
    truth: np.ndarray
    num_classes: int

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or len(self.values) != len(self.truth):
            raise ValueError(f"features {self.values.shape} and {len(self.truth)} labels do not belong together")
        if self.truth.ndim != 1:
            return
        if not len(self.values):
            raise ValueError("there are no labelled samples")
        if not 0 <= self.truth.min() <= self.truth.max() < self.num_classes:
            seen = f"{int(self.truth.min())}..{int(self.truth.max())}"
            raise ValueError(f"class ids {seen} lie outside 0..{self.num_classes - 1}")

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, index: np.ndarray) -> "Labelled":
        """The samples at `index`, in that order."""
        return replace(self, values=self.values[index], truth=self.truth[index])

    def with_more(self, more: "Labelled") -> "Labelled":
        """These samples and then `more`."""
        values, truth = (np.concatenate(pair) for pair in ((self.values, more.values), (self.truth, more.truth)))
        return replace(self, values=values, truth=truth)


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """One fitted classifier. `predict` maps features (N, D) to scores (N, C); only their order within a row counts, or
    within a column where samples show any number of classes."""

    predict: Callable[[np.ndarray], np.ndarray]
    chosen: dict[str, Any] = field(default_factory=dict)
    """The hyper-parameters in use and how they came about; they are logged beside the number."""
    variant: str = ""
    """Fitted classifiers of one variant (for example '5-shot') are repeats and become one row with their spread."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A variant that this data set cannot give, and why. It is listed; the other variants go on."""

    variant: str
    class_id: int  # of the class that has too little
    reason: str


class Protocol(Interface):
    """A way to measure features. `fit` never sees a test sample: that is what makes 'test touched once' hold."""

    @property
    def name(self) -> str: ...

    def fit(self, train: Labelled, held_out: Labelled) -> Sequence[Fitted | Skipped]:
        """Choose on `held_out` when there is something to choose, then fit on both."""
        ...


def best_strength(
    grid: Iterable[float],
    solve: Callable[[float, Solution], Solution],
    judge: Callable[[Solution], tuple[float, ...]],
    start: Solution,
) -> tuple[float, tuple[float, ...], Solution]:
    """(C, what `judge` says of it, its solution): every C from strong to weak, each solved from the solution before
    it; the one that `judge` puts highest, of equals the strongest. What is no number counts as the lowest.
    """
    trials = []
    for c in sorted(grid):
        start = solve(c, start)
        judged = judge(start)
        trials.append(((*np.nan_to_num(judged, nan=-np.inf), -c), c, judged, start))
    _, c, judged, solution = max(trials, key=lambda trial: trial[0])
    return c, judged, solution
