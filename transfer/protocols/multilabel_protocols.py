"""Multi-label tasks (VOC 2007): samples carry a list of classes, protocols rank samples, the measure is mean AP."""

from dataclasses import dataclass, field

import numpy as np

from focusvit.score.intervals import bootstrap
from pipeline.errors import DataError
from pipeline.shards.dataset import Split
from transfer.features.sealed import Answers
from transfer.tasks.result import Result
from transfer.tasks.task import Task

from .knn import neighbours
from .logistic import QUICK_GRID
from .multilabel import mean_average_precision
from .protocol import Fitted
from .softmax import SoftmaxRegression, linear_scores

_BOOTSTRAP_DRAWS = 200  # each sorts every class again


@dataclass(frozen=True, kw_only=True)
class Relevant:
    """Features float32 (N, D) and which classes each sample shows, bool (N, C)."""

    values: np.ndarray
    relevant: np.ndarray

    def rows(self, index: np.ndarray) -> "Relevant":
        return Relevant(values=self.values[index], relevant=self.relevant[index])

    def with_more(self, more: "Relevant") -> "Relevant":
        return Relevant(
            values=np.concatenate([self.values, more.values]), relevant=np.concatenate([self.relevant, more.relevant])
        )

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, kw_only=True)
class MultiLabelKnn:
    """As `Knn`: each of the k nearest votes for all its classes."""

    k: int = 20
    temperature: float = 0.07
    device: str = "cpu"
    name: str = field(default="knn", init=False)

    def fit(self, train: Relevant, held_out: Relevant) -> list[Fitted]:
        whole = train.with_more(held_out)
        k = min(self.k, len(whole))

        def predict(values: np.ndarray) -> np.ndarray:
            weight, index = neighbours(whole.values, values, k=k, temperature=self.temperature, device=self.device)
            return (weight[:, :, None] * whole.relevant[index]).sum(1) / weight.sum(1, keepdims=True)

        return [Fitted(predict=predict, chosen={"k": k, "T": self.temperature})]


@dataclass(frozen=True, kw_only=True)
class OneAgainstRest:
    """One binary logistic regression per class; one C for all, by mean AP on the held-out samples."""

    grid: tuple[float, ...] = QUICK_GRID
    device: str = "cpu"
    name: str = field(default="logistic", init=False)

    def fit(self, train: Relevant, held_out: Relevant) -> list[Fitted]:
        problems = self._problems(train)
        starts = [problem.zeros() for problem in problems]
        trials = []
        for c in sorted(self.grid):
            starts = [p.solve(c, start, 500, 1e-6)[0] for p, start in zip(problems, starts)]
            found = mean_average_precision(_margins(starts, held_out.values), held_out.relevant)
            trials.append((-np.inf if np.isnan(found) else found, -c, starts))
        score, minus_c, starts = max(trials, key=lambda trial: trial[:2])
        solved = [
            p.solve(-minus_c, start, 500, 1e-6)[0]
            for p, start in zip(self._problems(train.with_more(held_out)), starts)
        ]
        chosen: dict[str, float | int | str] = {"C": -minus_c, "held_out_map": score, "num_held_out": len(held_out)}
        return [Fitted(predict=lambda values: _margins(solved, values), chosen=chosen)]

    def _problems(self, data: Relevant) -> list[SoftmaxRegression]:
        """One problem per class, in the same turned coordinates."""
        columns = [data.relevant[:, c].astype(np.float64) for c in range(data.relevant.shape[1])]
        return [SoftmaxRegression(data.values, np.stack([1 - one, one], 1), device=self.device) for one in columns]


def _margins(weights: list[np.ndarray], values: np.ndarray) -> np.ndarray:
    scores = [linear_scores(one, values.astype(np.float64)) for one in weights]
    return np.stack([one[:, 1] - one[:, 0] for one in scores], 1)


def read_relevant(split: Split) -> np.ndarray:
    """bool (N, C) from the `labels` of every sample. Raises DataError for a sample without such a list."""
    relevant = np.zeros((split.num_samples, split.num_classes), bool)
    for number in range(split.num_samples):
        sample = split.read(number)
        labels = sample.meta.get("labels")
        if labels is None:
            raise DataError(f"sample {sample.key} of split '{split.name}' at {split.uri} has no list of labels.")
        if labels and not 0 <= min(labels) <= max(labels) < split.num_classes:
            raise DataError(
                f"sample {sample.key} of split '{split.name}' at {split.uri} has the labels {labels}, outside "
                f"0..{split.num_classes - 1}."
            )
        relevant[number, labels] = True
    return relevant


def is_multilabel(split: Split) -> bool:
    """Whether samples carry lists of labels instead of a class; looks at the first few."""
    some = [split.read(number) for number in range(min(8, split.num_samples))]
    return (
        bool(some)
        and all(one.class_id is None and one.label_map is None for one in some)
        and any("labels" in one.meta for one in some)
    )


def score_relevant(
    fitted: list[Fitted],
    test: Answers,
    task: Task,
    *,
    features: str,
    protocol: str,
    classes: tuple[str, ...],
    **facts: float,
) -> list[Result]:
    """As `scoring.score`: the row of the one fitted classifier; its interval is over test samples."""
    (one,) = fitted
    scores, relevant = one.predict(test.values), test.truth
    value = mean_average_precision(scores, relevant)
    low, high = bootstrap(
        lambda rows: mean_average_precision(scores[rows], relevant[rows]), len(relevant), draws=_BOOTSTRAP_DRAWS
    )
    per_class = [mean_average_precision(scores[:, [c]], relevant[:, [c]]) for c in range(relevant.shape[1])]
    row = Result(
        task=task.name,
        features=features,
        protocol=protocol,
        metric="map",
        value=value,
        low=low,
        high=high,
        interval="bootstrap",
        chance=float(relevant.mean(0)[relevant.any(0)].mean()),
        num_classes=len(classes),
        num_train=int(facts["num_train"]),
        num_test=len(relevant),
        scores={"map": value, "map_11_points": mean_average_precision(scores, relevant, eleven_points=True)},
        chosen=dict(one.chosen),
        per_class=[None if np.isnan(share) else float(share) for share in per_class],
        classes=list(classes),
        fit_s=float(facts["fit_s"]),
    )
    return [row]


def protocols(features: str, device: str) -> list[MultiLabelKnn | OneAgainstRest]:
    """kNN on everything, the probe on network features."""
    return [MultiLabelKnn(device=device)] + ([] if features == "pixels" else [OneAgainstRest(device=device)])
