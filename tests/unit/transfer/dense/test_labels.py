"""A score needs two classes: masks whose second value never counts are refused, or read as one says."""

import dataclasses

import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.shards.dataset import Split
from testkit.tiny_checkpoint import make_checkpoint
from testkit.tiny_shards import make_dataset
from transfer import suite
from transfer.dense.labels import check_scored, numbered_classes
from transfer.tasks.spec import WorkSpec
from transfer.tasks.task import Task
from transfer.work import run_task


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    root = tmp_path_factory.mktemp("masks")
    data = make_dataset(root / "data", splits={"train": 12, "val": 6}, dense=True)
    return data, make_checkpoint(root / "ckpt")


def masked(monkeypatch, read_as):
    """Label maps as `read_as` makes them of bool (h, w), True on the shape."""
    read = Split.read

    def other(self, number):
        sample = read(self, number)
        shape = (sample.label_map > 0) & (sample.label_map < 255)
        return dataclasses.replace(sample, label_map=read_as(shape).astype(np.uint8))

    monkeypatch.setattr(Split, "read", other)


def measure(road, out, **task):
    data, checkpoint = road
    spec = WorkSpec(
        task=Task(name="lesions", uri=data, **{"classes": ("skin", "lesion"), **task}),
        checkpoint=checkpoint, suite="quick", out=str(out / "results"), features_folder=str(out / "features"),
        baselines=False,
    )  # fmt: skip
    return run_task(spec)


@pytest.mark.parametrize(
    ("read_as", "task", "words"),
    [
        (lambda shape: shape * 255, {}, ("0 (", "255 never count", "class 0 alone", "--map-labels 255:1")),
        (lambda shape: shape * 255, {"map_labels": ((255, 0),)}, ("0 (100.0%)", "class 0 alone")),
        (lambda shape: shape * 1, {"ignore": (0,)}, ("0 never count", "class 1 alone")),
        (lambda shape: shape * 0 + 255, {}, ("255 (100.0%)", "no class")),
        (lambda shape: shape * 0, {}, ("class 0 alone",)),
    ],
    ids=["0 and 255", "all mapped to one", "one of two ignored", "255 alone", "one value"],
)
def test_fewer_than_two_scored_classes_are_refused(road, tmp_path, monkeypatch, read_as, task, words):
    masked(monkeypatch, read_as)
    outcome = measure(road, tmp_path, **task)
    assert outcome.rows == [] and len(outcome.failures) == 1
    assert all(word in outcome.failures[0] for word in words), outcome.failures


def test_masks_of_0_and_255_score_as_masks_of_0_and_1(road, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        masked(patch, lambda shape: shape * 1)
        expected = measure(road, tmp_path / "a")
    masked(monkeypatch, lambda shape: shape * 255)
    found = measure(road, tmp_path / "b", map_labels=((255, 1),))
    assert expected.failures == found.failures == []
    values = [[(row.protocol, row.value, row.confusion) for row in one.rows] for one in (expected, found)]
    assert values[0] == values[1] and all(np.array(row.confusion)[1].sum() > 0 for row in found.rows)
    assert found.notes == []


def test_what_is_never_counted_is_said(road, tmp_path):
    names = ("ground", "disc", "square", "triangle", "star")
    outcome = measure(road, tmp_path, classes=names)
    assert outcome.failures == []
    assert outcome.notes == [
        "lesions: labels that are never counted: 255 (1.0% of the test pixels)"
    ]  # 4 x 4 of 40 x 40


def test_counts_and_numbers_of_classes():
    counts = np.zeros(256, np.int64)
    counts[[0, 3, 7, 255]] = 10
    assert numbered_classes(counts, ()) == tuple("01234567") and numbered_classes(counts, (7,)) == tuple("0123")
    assert check_scored(counts, 8, (7,)) == (
        "labels that are never counted: 7 (25.0% of the test pixels), 255 (25.0% of the test pixels)"
    )
    with pytest.raises(UsageError, match="class 0 alone"):
        check_scored(counts, 2, (7,))


def test_the_option_is_read_and_checked(road):
    config = suite.TransferConfig(
        checkpoint="c", suite="quick", task=(f"m={road[0]}",), out="o", map_labels="255:1, 7:0"
    )
    (read,), _ = suite._tasks(config)
    assert read.map_labels == ((255, 1), (7, 0)) and read.ignore == ()
    for wrong in ("255", "255:", "a:1", "1:300", "1:2:3"):
        with pytest.raises(UsageError, match="--map-labels"):
            suite._tasks(dataclasses.replace(config, map_labels=wrong))
