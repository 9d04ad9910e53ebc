"""Scores of a checkpoint while its training goes on: scikit-learn's on the same rows, and never from a test split."""

import dataclasses

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from focusvit.data.loader import EvalLoader
from focusvit.predict.compatible import data_config
from focusvit.runs.checkpoint import load_model
from pipeline.errors import UsageError
from pipeline.shards.dataset import open_dataset
from testkit.tiny_checkpoint import make_checkpoint
from testkit.tiny_shards import make_dataset
from transfer.checkpoint_score import HELD_OUT_SHARE, ScoreSpec, score_checkpoint
from transfer.features.features import model_rows
from transfer.features.hold_out import hold_out
from transfer.tasks.task import Task


@pytest.mark.parametrize("changes", [{}, {"tokens": None}, {"partition": "grid"}])
def test_knn_is_scikit_learns_on_a_fifth_of_the_training_split(tmp_path, changes):
    # There is no other split: whatever is scored cannot come from a test set.
    data = make_dataset(tmp_path / "data", splits={"train": 60})
    checkpoint = make_checkpoint(tmp_path / "ckpt", **changes)
    points = score_checkpoint(ScoreSpec(checkpoint=checkpoint, task=Task(name="t", uri=data)))

    split, (model, record) = open_dataset(data).split("train"), load_model(checkpoint)
    with_maps, tokens = model.config.needs_maps, model.config.tokens
    loader = EvalLoader(split, data_config(record, 0), batch_size=60, tokens=tokens, with_maps=with_maps)
    ((_, values),) = model_rows(model.features, loader, "cpu")
    bank, scored = hold_out(split.class_ids.astype(np.int64), HELD_OUT_SHARE, 0)
    assert len(scored) == 12
    theirs = KNeighborsClassifier(20, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07))
    theirs.fit(values[bank], split.class_ids[bank])
    assert points["transfer/t/knn"] == pytest.approx(theirs.score(values[scored], split.class_ids[scored]), abs=1e-3)
    for name in ("knn", "5_shot"):
        low, value, high = (points[f"transfer/t/{name}{end}"] for end in ("_low", "", "_high"))
        assert 0 <= low <= value <= high <= 1
    assert points["transfer/t/chance"] == 0.25


def test_a_bound_on_samples_is_kept_and_other_superpixels_are_refused(tmp_path):
    data = make_dataset(tmp_path / "data", splits={"train": 60})
    spec = ScoreSpec(checkpoint=make_checkpoint(tmp_path / "ckpt"), task=Task(name="t", uri=data), max_samples=20)
    few = score_checkpoint(spec)
    assert few == score_checkpoint(spec)
    assert set(few) <= set(score_checkpoint(dataclasses.replace(spec, max_samples=60)))
    place = tmp_path / "data" / "dataset.json"
    place.write_text(place.read_text().replace('"compactness": 10.0', '"compactness": 33.0'))
    with pytest.raises(UsageError, match="compactness"):
        score_checkpoint(spec)
