"""From fitted classifiers and the test set to rows of the table: metric, interval, chance."""

import numpy as np

from focusvit.score.intervals import bootstrap, over_draws, wilson
from transfer.features.sealed import Answers
from transfer.tasks.result import Result
from transfer.tasks.task import Task

from . import metrics
from .protocol import Fitted


def score(
    fitted: list[Fitted],
    test: Answers,
    task: Task,
    *,
    features: str,
    protocol: str,
    classes: tuple[str, ...],
    **facts: float,
) -> list[Result]:
    """One row per variant. Repeats of a variant become its mean with Student's t; a single one is resampled over the
    test samples. `facts` are num_train and fit_s, the same for each row.
    """
    rows = []
    for variant in dict.fromkeys(one.variant for one in fitted):
        repeats = [one for one in fitted if one.variant == variant]
        predicted = [one.predict(test.values).argmax(1) for one in repeats]
        scores = [_scores(one, test.truth, len(classes)) for one in predicted]
        draws = [one[task.metric] for one in scores]
        if len(repeats) > 1:
            low, high = over_draws(draws)
            interval = f"t over {len(draws)} draws"
        else:
            low, high, interval = _single_interval(predicted[0], test.truth, len(classes), task.metric)
        counted = sum(metrics.confusion(one, test.truth, len(classes)) for one in predicted)
        share = metrics.per_class(np.concatenate(predicted), np.tile(test.truth, len(predicted)), len(classes))
        rows.append(
            Result(
                task=task.name,
                features=features,
                protocol=protocol,
                variant=variant,
                metric=task.metric,
                value=float(np.mean(draws)),
                low=low,
                high=high,
                interval=interval,
                chance=metrics.chance(test.truth, len(classes), task.metric),
                num_classes=len(classes),
                num_train=int(facts["num_train"]),
                num_test=len(test.truth),
                scores={name: float(np.mean([one[name] for one in scores])) for name in scores[0]},
                chosen=dict(repeats[0].chosen),
                draws=draws if len(draws) > 1 else [],
                per_class=[None if np.isnan(value) else float(value) for value in share],
                confusion=np.asarray(counted).tolist(),
                classes=list(classes),
                fit_s=float(facts["fit_s"]),
            )
        )
    return rows


def _scores(predicted: np.ndarray, class_ids: np.ndarray, num_classes: int) -> dict[str, float]:
    return {
        "top1": float((predicted == class_ids).mean()),
        "mean_per_class": metrics.mean_per_class(predicted, class_ids, num_classes),
    }


def _single_interval(
    predicted: np.ndarray, class_ids: np.ndarray, num_classes: int, metric: str
) -> tuple[float, float, str]:
    if metric == "top1":
        return *wilson(int((predicted == class_ids).sum()), len(class_ids)), "wilson"

    def resampled(rows: np.ndarray) -> float:
        return metrics.mean_per_class(predicted[rows], class_ids[rows], num_classes)

    return *bootstrap(resampled, len(class_ids)), "bootstrap"
