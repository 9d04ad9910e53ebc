"""A task as data: where its shards are, which splits play which part, and the metric it is reported in."""

import dataclasses
from dataclasses import dataclass
from typing import Literal, get_args

from pipeline.errors import UsageError
from pipeline.shards.dataset import Dataset

Metric = Literal["top1", "mean_per_class", "map", "miou"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One downstream task. Empty split names are filled in from what the data set has (`with_splits`)."""

    name: str
    uri: str
    """A folder that `focusvit preprocess` wrote."""
    train: str = "train"
    held_out: str = ""
    """The split to choose hyper-parameters on; empty = a seeded tenth of the training split."""
    test: str = ""
    metric: Metric = "top1"
    classes: tuple[str, ...] = ()
    """Names of the labels of a dense task; empty = the data set's own, else numbers."""
    ignore: tuple[int, ...] = ()
    """Label values of a dense task that are never counted, beside 255."""
    map_labels: tuple[tuple[int, int], ...] = ()
    """(value in the label maps, value to read for it), before `ignore`: ((255, 1),) for masks of 0 and 255."""
    num_rows: tuple[int, int] | None = None
    """(to train on, to choose on): a seeded draw from the training split instead of all of it (VTAB-1k: 800, 200)."""

    def __post_init__(self) -> None:
        if not self.name or set(self.name) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"):
            raise ValueError(f"a task is called '{self.name}'; use letters, digits, '.', '_' and '-'")
        if self.metric not in get_args(Metric):
            raise ValueError(
                f"task {self.name} has metric '{self.metric}'; choose one of {', '.join(get_args(Metric))}"
            )

    def with_splits(self, dataset: Dataset) -> "Task":
        """The task with its splits decided. Two splits: train and the other. Three: train, val to choose on, test.

        Raises UsageError when a split is missing, or when one split would play two parts.
        """
        names = dataset.splits
        if self.train not in names:
            dataset.split(self.train)  # raises, and names the splits that exist
        others = [name for name in names if name != self.train]
        test = self.test or ("test" if "test" in names else "val" if "val" in names else "")
        if not test:
            raise UsageError(
                f"task {self.name}: the data set at {dataset.uri} has no split to test on besides '{self.train}' "
                f"(it has {', '.join(sorted(others)) or 'no other'}). Add one with `focusvit preprocess --split test`; "
                "of images without splits make both anew, in another folder, with `--split train --val-share 0.2` and "
                "`--split val --val-share 0.2`."
            )
        held_out = self.held_out or ("val" if test == "test" and "val" in names else "")
        parts = [part for part in (self.train, held_out, test) if part]
        if len(set(parts)) != len(parts):
            raise UsageError(f"task {self.name}: one split would play two parts ({', '.join(parts)}). Name three.")
        return dataclasses.replace(self, held_out="" if self.num_rows else held_out, test=test)
