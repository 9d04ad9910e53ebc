"""What is wrong with a task is a line that names it, or a listed skip; never a number that looks right."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.shards.dataset import Split, index_uri
from testkit.tiny_checkpoint import make_checkpoint
from testkit.tiny_shards import make_dataset
from transfer.finetune import FineTune, run_finetune
from transfer.tasks.spec import Outcome, WorkSpec
from transfer.tasks.task import Task
from transfer.work import run_task


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("bad") / "ckpt")


def measure(data: str, checkpoint: str, out: Path, **changes) -> Outcome:
    values = {"suite": "quick", "out": str(out / "results"), "features_folder": str(out / "features")}
    task = Task(name="bad", uri=data)
    return run_task(WorkSpec(**{"task": task, "checkpoint": checkpoint, "baselines": False, **values, **changes}))


def refused(outcome: Outcome, *words: str) -> None:
    assert outcome.rows == [] and outcome.failures
    for line in outcome.failures:
        assert line.startswith("bad") and all(word in line for word in words), line


def test_a_missing_split(checkpoint, tmp_path):
    data = make_dataset(tmp_path / "data", splits={"train": 12})
    refused(measure(data, checkpoint, tmp_path), "has no split to test on", "--split test")
    refused(
        measure(data, checkpoint, tmp_path, task=Task(name="bad", uri=data, train="all")), "no split 'all'", "train"
    )


def test_a_class_without_training_samples_is_noted_and_counts_as_wrong(checkpoint, tmp_path):
    data = make_dataset(tmp_path / "data", splits={"train": 40, "val": 16}, labels={3: 0})
    outcome = measure(data, checkpoint, tmp_path)
    assert outcome.failures == [] and "1 classes have test samples and no training sample" in outcome.notes[0]
    assert "'star'" in outcome.notes[0]
    assert outcome.rows
    for row in outcome.rows:
        assert row.num_test == 16 and row.per_class[3] == 0 and sum(row.confusion[3]) % 4 == 0


def test_a_single_class_is_refused_in_words(checkpoint, tmp_path):
    data = make_dataset(tmp_path / "data", splits={"train": 12, "val": 8}, labels=dict.fromkeys(range(1, 4), 0))
    refused(measure(data, checkpoint, tmp_path), "all 12 samples of split 'train'", "of one class ('disc')")


def test_fewer_images_than_shots_is_a_listed_skip(checkpoint, tmp_path):
    data = make_dataset(tmp_path / "data", splits={"train": 24, "val": 8})
    outcome = measure(data, checkpoint, tmp_path)
    assert outcome.failures == [] and {"1-shot", "5-shot"} == {r.variant for r in outcome.rows if r.protocol == "ridge"}
    listed = [note for note in outcome.notes if "skipped" in note]
    assert len(listed) == 2 and "10-shot skipped: class disc has 6 training samples" in listed[0]


def test_labels_out_of_range(checkpoint, tmp_path):
    data = make_dataset(tmp_path / "data", splits={"train": 24, "val": 8}, labels={3: 9})
    refused(measure(data, checkpoint, tmp_path), "class ids 0..9", "outside 0..3", "'train'")
    data = make_dataset(tmp_path / "data", splits={"train": 24, "val": 8}, labels={3: -1})
    refused(measure(data, checkpoint, tmp_path), "have no class")


def test_an_index_of_other_classes_than_the_shards(checkpoint, tmp_path):
    """Also when the features come from a file, so that no shard is read."""
    data = make_dataset(tmp_path / "data", splits={"train": 24, "val": 16})
    assert measure(data, checkpoint, tmp_path).failures == []
    place = Path(index_uri(data, "val"))
    index = np.load(place)
    index["class_id"][[12, 13]] = index["class_id"][[13, 12]]
    np.save(place, index)
    refused(measure(data, checkpoint, tmp_path), "another class_id in the index than in its sidecar")


def test_masks_of_another_size(checkpoint, tmp_path, monkeypatch):
    data = make_dataset(tmp_path / "data", splits={"train": 12, "val": 4}, dense=True)
    read = Split.read

    def cut(self, number):
        sample = read(self, number)
        return dataclasses.replace(sample, label_map=sample.label_map[:9])

    monkeypatch.setattr(Split, "read", cut)
    refused(measure(data, checkpoint, tmp_path), "the label map is 9x40 and the image 40x40", "one ratio")


def test_other_superpixel_settings_than_the_checkpoints(checkpoint, tmp_path):
    data = make_dataset(tmp_path / "data", splits={"train": 12, "val": 4})
    place = Path(data, "dataset.json")
    said = json.loads(place.read_text())
    said["superpixels"]["compactness"] = 33.0
    place.write_text(json.dumps(said))
    refused(measure(data, checkpoint, tmp_path), "compactness: 10.0 -> 33.0", "Preprocess the images again")
    tuned = run_finetune(
        WorkSpec(
            task=Task(name="bad", uri=data), checkpoint=checkpoint, suite="quick", out=str(tmp_path), features_folder=""
        ),
        FineTune(steps=1, seeds=1),
    )
    refused(tuned, "compactness")


def test_a_cached_feature_file_of_other_weights(checkpoint, tmp_path):
    data = make_dataset(tmp_path / "data", splits={"train": 24, "val": 8})
    assert measure(data, checkpoint, tmp_path).failures == []
    mine = sorted(tmp_path.glob("features/*"))
    other = make_checkpoint(tmp_path / "other", seed=3)
    measure(data, other, tmp_path)
    theirs = sorted(set(tmp_path.glob("features/*")) - set(mine))
    assert mine and len(mine) == len(theirs)
    for good, bad in zip(mine, theirs):  # the files of one checkpoint under the names of the other
        bad.write_bytes(good.read_bytes())
    for result in (tmp_path / "results").glob("*.json"):
        result.unlink()
    refused(measure(data, other, tmp_path), "made by other weights", "Remove it")
    assert measure(data, checkpoint, tmp_path).failures == []


def test_the_other_protocols_and_tasks_go_on(checkpoint, tmp_path):
    """A broken protocol costs its own rows only."""
    data = make_dataset(tmp_path / "data", splits={"train": 4, "val": 8})  # one sample a class: nothing to hold out
    refused(measure(data, checkpoint, tmp_path), "every class has a single one")
