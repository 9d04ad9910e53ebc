"""The table of known tasks, suites as data, and what a suite does with what is prepared."""

import dataclasses

import cv2
import numpy as np
import pytest

from focusvit.runs.checkpoint import load_checkpoint
from pipeline.errors import UsageError
from pipeline.shards.dataset import open_dataset
from pipeline.sources.embedded import draw_shape
from testkit.tiny_checkpoint import make_checkpoint
from testkit.tiny_shards import CLASSES, make_dataset
from transfer.features.hold_out import draw_parts
from transfer.options import SUITES
from transfer.report.table import markdown
from transfer.suites import protocols_of, tasks_of
from transfer.tasks.known_tasks import DOCUMENTED, KNOWN_TASKS, VERIFIED, group_of, known, parse_task
from transfer.tasks.prepare import prepared, raw_splits
from transfer.tasks.spec import WorkSpec
from transfer.tasks.task import Task
from transfer.work import run_task


def test_the_table_is_complete_and_says_what_was_verified():
    names = [task.name for task in KNOWN_TASKS]
    assert len(set(names)) == len(names)
    assert sum(task.group == "kornblith" for task in KNOWN_TASKS) == 12
    assert sum(task.group.startswith("vtab") or "vtab1k" in task.suites for task in KNOWN_TASKS) == 19
    assert {task.status for task in KNOWN_TASKS} == {VERIFIED, DOCUMENTED}
    assert {"camvid", "cifar10", "digits", "tiny-imagenet-40"} == {t.name for t in KNOWN_TASKS if t.status == VERIFIED}
    camvid = known("camvid")
    assert camvid is not None and len(camvid.classes) == camvid.num_classes == 11 and camvid.ignore == (11,)


def test_the_readme_holds_the_table_as_it_is():
    from pathlib import Path

    import transfer

    head = ("task", "group", "source", "classes", "train", "test", "metric", "status")
    rows = [
        (t.name, t.group, t.source, t.num_classes, f"{t.num_train:,}", f"{t.num_test:,}", t.metric, t.status)
        for t in KNOWN_TASKS
    ]
    assert markdown(head, rows) in (Path(transfer.__file__).parent / "TASKS.md").read_text()


def test_a_known_name_brings_its_facts(tmp_path):
    assert parse_task(f"pets={tmp_path}").metric == "mean_per_class"
    assert parse_task(f"camvid={tmp_path}").ignore == (11,)
    assert parse_task(f"mine={tmp_path}") == Task(name="mine", uri=str(tmp_path))


@pytest.mark.parametrize("suite", SUITES)
def test_every_suite_has_protocols_for_every_kind_of_features(suite):
    for features in ("checkpoint", "random", "pixels"):
        names = [protocol.name for protocol in protocols_of(suite, features, "cpu")]
        assert names and len(set(names)) == len(names)
    full = {p.name: p for p in protocols_of("kornblith", "checkpoint", "cpu")}
    assert len(full["logistic"].grid) == 45 and full["logistic"].grid[0] == pytest.approx(1e-6)
    assert full["logistic"].grid[-1] == pytest.approx(1e5) and "heads" in full


def test_prepared_tasks_are_found_and_the_others_listed(tmp_path):
    make_dataset(tmp_path / "pets")
    found, missing = tasks_of("kornblith", str(tmp_path))
    assert [task.name for task in found] == ["pets"] and len(missing) == 11
    vtab = tasks_of("vtab1k", str(tmp_path))[0][0]
    assert vtab.metric == "top1" and vtab.num_rows == (800, 200)
    make_dataset(tmp_path / "digits")
    assert [task.name for task in tasks_of("quick", str(tmp_path))[0]] == ["digits"]
    with pytest.raises(UsageError, match="none of its 5 tasks"):
        tasks_of("dense", str(tmp_path))
    assert group_of("pets") == "natural" and group_of("dmlab") == "structured" and group_of("mine") == ""


def test_vtab_draws_are_disjoint_and_too_few_images_are_a_listed_failure(tmp_path):
    train, chosen = draw_parts(3000, (800, 200), seed=0)
    assert len(train) == 800 and len(chosen) == 200 and not set(train) & set(chosen)
    assert (draw_parts(3000, (800, 200), seed=0)[0] == train).all()
    data = make_dataset(tmp_path / "data", splits={"train": 30, "val": 12})
    values = {"checkpoint": make_checkpoint(tmp_path / "ckpt"), "suite": "vtab1k", "baselines": False}
    values |= {"out": str(tmp_path / "out"), "features_folder": str(tmp_path / "features")}
    outcome = run_task(WorkSpec(task=Task(name="t", uri=data, num_rows=(800, 200)), **values))
    assert outcome.rows == [] and "there are 30" in outcome.failures[0]
    small = run_task(WorkSpec(task=Task(name="t", uri=data, num_rows=(16, 8)), **values))
    assert small.failures == [] and {row.num_train for row in small.rows} == {24}
    assert np.isfinite([row.value for row in small.rows]).all()


def test_an_image_folder_is_a_task_with_the_checkpoints_superpixels(tmp_path):
    images = tmp_path / "images"
    for split, count in (("train", 6), ("val", 3)):
        for class_id, name in enumerate(CLASSES):
            (images / split / name).mkdir(parents=True)
            for number in range(count):
                rgb, _ = draw_shape(np.random.default_rng([class_id, number, count]), class_id, 40)
                cv2.imwrite(str(images / split / name / f"{number}.png"), rgb[:, :, ::-1])
    checkpoint = make_checkpoint(tmp_path / "ckpt")
    record = load_checkpoint(checkpoint)
    said: list[str] = []
    task = prepared(Task(name="mine", uri=str(images)), record, str(tmp_path / "out"), said.append, workers=0)
    data = open_dataset(task.uri)
    assert {name: split.num_samples for name, split in data.splits.items()} == {"train": 24, "val": 12}
    assert dataclasses.asdict(data.superpixels) == record.superpixels and len(said) == 2
    assert prepared(task, record, str(tmp_path / "out"), said.append) == task and len(said) == 2
    values = {"out": str(tmp_path / "results"), "features_folder": str(tmp_path / "features"), "baselines": False}
    assert run_task(WorkSpec(task=task, checkpoint=checkpoint, suite="quick", **values)).failures == []
    assert raw_splits(str(images / "train")) == []  # class folders alone: nothing to test on
