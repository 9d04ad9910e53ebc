"""What one checkpoint of a running training is worth elsewhere: kNN and few-shot on a part of a task's training split.

The test split is never opened here. A training that is steered by these curves has not seen it either.
"""

from dataclasses import dataclass

import numpy as np
import torch

from focusvit.predict.compatible import check_labelled, check_superpixels, data_config
from focusvit.runs.checkpoint import load_model
from focusvit.score.intervals import over_draws, wilson
from pipeline.shards.dataset import open_dataset
from transfer.features.features import model_batches, model_rows
from transfer.features.hold_out import hold_out
from transfer.protocols.knn import Knn
from transfer.protocols.protocol import Fitted, Labelled
from transfer.protocols.ridge import Ridge
from transfer.tasks.subset import limited
from transfer.tasks.task import Task

HELD_OUT_SHARE = 0.2
SHOTS = 5


@dataclass(frozen=True, kw_only=True)
class ScoreSpec:
    """One checkpoint on one task, as values that travel to another process."""

    checkpoint: str
    task: Task
    max_samples: int = 5000
    """Most samples of the training split, drawn by seed: a bound on the time of a scoring."""
    batch_size: int = 64
    seed: int = 0


def score_checkpoint(spec: ScoreSpec) -> dict[str, float]:
    """Points of curves, such as transfer/digits/knn, each with the ends of its 95 % interval, and chance.

    Raises UsageError, DataError when task and checkpoint do not belong together.
    """
    dataset = open_dataset(spec.task.uri)
    split = dataset.split(spec.task.train)
    check_labelled(split)
    model, record = load_model(spec.checkpoint)
    if model.config.needs_maps:
        check_superpixels(record, dataset)
    part = limited(split, spec.max_samples, spec.seed)
    data, tokens = data_config(record, 0), model.config.tokens
    batches = model_batches(model, part, data, batch_size=spec.batch_size, tokens=tokens)
    found = list(model_rows(model.features, batches, "cpu"))
    values = np.concatenate([features for _, features in found])[np.argsort(np.concatenate([ids for ids, _ in found]))]
    samples = Labelled(values=values, truth=part.class_ids.astype(np.int64), num_classes=len(dataset.classes))
    bank, scored = hold_out(samples.truth, HELD_OUT_SHARE, spec.seed)
    return {f"transfer/{spec.task.name}/{name}": value for name, value in _scores(samples, bank, scored).items()}


def _scores(samples: Labelled, bank: np.ndarray, scored: np.ndarray) -> dict[str, float]:
    """kNN with Wilson's interval, few-shot with Student's t over its draws, chance: of the samples `scored`."""
    test = samples.rows(scored)
    train, rest = samples.rows(bank[:-1]), samples.rows(bank[-1:])  # nothing is chosen: protocols join the two again

    def top1(one: Fitted) -> float:
        return float((one.predict(test.values).argmax(1) == test.truth).mean())

    with torch.inference_mode():
        knn = top1(Knn().fit(train, rest)[0])
    low, high = wilson(round(knn * len(test)), len(test))
    points = {"knn": knn, "knn_low": low, "knn_high": high}
    draws = [top1(one) for one in Ridge(shots=(SHOTS,)).fit(train, rest) if isinstance(one, Fitted)]
    if draws:
        low, high = over_draws(draws)
        name = f"{SHOTS}_shot"
        points |= {name: float(np.mean(draws)), f"{name}_low": low, f"{name}_high": high}
    points["chance"] = float(np.bincount(test.truth).max() / len(test))
    return points
