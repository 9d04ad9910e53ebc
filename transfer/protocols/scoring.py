"""From fitted classifiers and the test set to rows of the table: metric, interval, chance."""

from typing import Any

import numpy as np

from focusvit.score.intervals import bootstrap, over_draws, wilson
from transfer.tasks.result import Result
from transfer.tasks.task import Task

from . import metrics
from .multilabel import average_precision, eleven_point_precision, mean_of_known
from .protocol import Fitted

_RANKING_DRAWS = 200  # of the bootstrap: each sorts every class again


def score(
    fitted: list[Fitted], values: np.ndarray, truth: np.ndarray, task: Task, *, features: str, protocol: str,
    classes: tuple[str, ...], num_train: int, fit_s: float,
) -> list[Result]:  # fmt: skip
    """One row per variant, of test samples with `values` and `truth` as in `Labelled`. Repeats of a variant become its
    mean with Student's t; a single one gets an interval over the test samples. `num_train` and `fit_s` are the same for
    each row.
    """
    rows = []
    for variant in dict.fromkeys(one.variant for one in fitted):
        repeats = [one for one in fitted if one.variant == variant]
        scores = [one.predict(values) for one in repeats]
        measured = _ranked(scores[0], truth) if task.metric == "map" else _classified(scores, truth, task)
        rows.append(
            Result(
                task=task.name, features=features, protocol=protocol, variant=variant, metric=task.metric,
                num_classes=len(classes), num_train=num_train, num_test=len(truth), classes=list(classes),
                chosen=dict(repeats[0].chosen), fit_s=fit_s, **measured,
            )
        )  # fmt: skip
    return rows


def _classified(scores: list[np.ndarray], class_ids: np.ndarray, task: Task) -> dict[str, Any]:
    """Of repeats, scores (N, C) each, and the class of each sample (N,)."""
    num_classes = scores[0].shape[1]
    predicted = [one.argmax(1) for one in scores]
    counts = [metrics.confusion(one, class_ids, num_classes) for one in predicted]
    draws = [metrics.of_confusion(one, task.metric) for one in counts]
    if len(draws) > 1:
        (low, high), interval = over_draws(draws), f"t over {len(draws)} draws"
    elif task.metric == "top1":
        (low, high), interval = wilson(int(np.trace(counts[0])), len(class_ids)), "wilson"
    else:

        def resampled(rows: np.ndarray) -> float:
            return metrics.of_confusion(
                metrics.confusion(predicted[0][rows], class_ids[rows], num_classes), task.metric
            )

        (low, high), interval = bootstrap(resampled, len(class_ids)), "bootstrap"
    total = np.sum(counts, 0)
    return {
        "value": float(np.mean(draws)), "low": low, "high": high, "interval": interval,
        "chance": metrics.chance(class_ids, num_classes, task.metric),
        "scores": {
            name: float(np.mean([metrics.of_confusion(one, name) for one in counts]))
            for name in ("top1", "mean_per_class")
        },
        "draws": draws if len(draws) > 1 else [],
        "per_class": _numbers(metrics.per_class(total)), "confusion": total.tolist(),
    }  # fmt: skip


def _ranked(scores: np.ndarray, relevant: np.ndarray) -> dict[str, Any]:
    """Of one classifier, scores (N, C), and the classes that each sample shows, bool (N, C)."""
    found = average_precision(scores, relevant)
    value = mean_of_known(found)
    low, high = bootstrap(
        lambda rows: mean_of_known(average_precision(scores[rows], relevant[rows])), len(relevant), draws=_RANKING_DRAWS
    )
    return {
        "value": value, "low": low, "high": high, "interval": "bootstrap",
        "chance": float(relevant.mean(0)[relevant.any(0)].mean()),
        "scores": {"map": value, "map_11_points": mean_of_known(eleven_point_precision(scores, relevant))},
        "per_class": _numbers(found),
    }  # fmt: skip


def _numbers(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]
