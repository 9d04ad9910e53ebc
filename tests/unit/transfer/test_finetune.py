"""Fine-tuning: a subset holds the same samples, the grid is chosen without the test, the last weights are scored."""

import dataclasses
import shutil

import numpy as np
import pytest

from focusvit.data.shard_cache import check_whole
from focusvit.runs.checkpoint import load_checkpoint
from focusvit.runs.run_dir import RunDir
from pipeline.shards.dataset import open_dataset
from testkit.tiny_checkpoint import edit_checkpoint, make_checkpoint
from testkit.tiny_shards import make_dataset
from transfer import finetune
from transfer.finetune import FineTune, run_finetune, train_here
from transfer.protocols import metrics
from transfer.tasks.spec import WorkSpec
from transfer.tasks.subset import write_subset
from transfer.tasks.task import Task
from transfer.work import TaskRun

SHORT = FineTune(learning_rates=(1e-3, 3e-3), layer_decays=(1.0,), steps=12, batch=16, seeds=2, drop_path=0.0, flip=0.0)


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    root = tmp_path_factory.mktemp("finetune")
    data = make_dataset(root / "data", splits={"train": 60, "val": 20})
    return root, data, make_checkpoint(root / "ckpt")


def spec(road, **changes) -> WorkSpec:
    root, data, checkpoint = road
    values = {"suite": "quick", "out": str(root / "results"), "features_folder": str(root / "features")}
    return WorkSpec(**{"task": Task(name="tiny", uri=data), "checkpoint": checkpoint, **values, **changes})


def test_a_subset_holds_the_bytes_of_the_chosen_samples_in_order(road, tmp_path):
    whole = open_dataset(road[1])
    train, val = whole.split("train"), whole.split("val")
    rows = np.array([3, 17, 18, 59])
    place = write_subset(whole, {"some": [(train, rows), (val, np.array([2]))]}, str(tmp_path / "some"))
    some = open_dataset(place).split("some")
    check_whole(some)
    expected = [train.read_members(int(i)) for i in rows] + [val.read_members(2)]
    assert [some.read_members(i) for i in range(5)] == expected
    assert some.class_ids.tolist() == [*train.class_ids[rows], val.class_ids[2]]
    other = write_subset(whole, {"some": [(train, rows[::-1])]}, str(tmp_path / "other"))
    assert open_dataset(other).split("some").identity != some.identity


def test_the_best_of_the_grid_is_trained_on_everything_and_scored_with_its_spread(road):
    trained: list[tuple[str, int, float]] = []
    scores: dict[float, float] = {}

    def spy(config, data_uri, run_dir, device):
        split = open_dataset(data_uri).split(config.data.train_split)
        trained.append((config.data.train_split, split.num_samples, config.optim.lr))
        assert config.num_steps(split.num_samples) == SHORT.steps
        train_here(config, data_uri, run_dir, device)
        if config.data.train_split == finetune.FIT:
            record = load_checkpoint(RunDir(run_dir).checkpoint_uri(RunDir(run_dir).latest()))
            scores[config.optim.lr] = record.metrics["val/top1"]

    outcome = run_finetune(spec(road), SHORT, spy)
    assert outcome.failures == []
    (row,) = outcome.rows
    assert [one[::2] for one in trained[:2]] == [("fit", 1e-3), ("fit", 3e-3)] and trained[0][1] < 60
    assert [one[:2] for one in trained[2:]] == [("all", 60)] * 2
    assert row.chosen["held_out_top1"] == pytest.approx(max(scores.values()))
    assert scores[row.chosen["lr"]] == max(scores.values()) and trained[2][2] == row.chosen["lr"]
    assert row.interval == "t over 2 draws" and len(row.draws) == 2 and row.num_test == 20 and row.num_train == 60
    again = run_finetune(spec(road), SHORT, lambda *_: pytest.fail("trained again"))
    assert again.num_skipped == 1 and again.rows == outcome.rows


def test_vtab_fits_on_its_draw_alone(road):
    sizes = set()

    def spy(config, data_uri, run_dir, device):
        sizes.add((config.data.train_split, open_dataset(data_uri).split(config.data.train_split).num_samples))
        train_here(config, data_uri, run_dir, device)

    settings = dataclasses.replace(SHORT, steps=2, learning_rates=(1e-3,), seeds=1)
    outcome = run_finetune(spec(road, task=Task(name="t", uri=road[1], num_rows=(16, 8))), settings, spy)
    assert outcome.failures == [] and sizes == {("fit", 16), ("all", 24)}
    assert outcome.rows[0].num_train == 24 and outcome.rows[0].interval == "wilson"


def test_the_test_labels_open_after_the_last_training(road, monkeypatch):
    order: list[str] = []
    monkeypatch.setattr(TaskRun, "open_test", lambda self, name: order.append("open"))

    def spy(*arguments):
        order.append("train")
        train_here(*arguments)

    settings = dataclasses.replace(SHORT, steps=3)
    assert run_finetune(spec(road), settings, spy).failures == []
    assert order == ["train"] * 4 + ["open"]


def test_a_failure_is_a_line_and_no_exception(road):
    gone = run_finetune(spec(road, task=Task(name="gone", uri="/nowhere")), SHORT)
    assert gone.rows == [] and "gone, finetune: /nowhere holds no data set" in gone.failures[0]


def test_a_training_that_breaks_is_a_line_too(road):
    def broken(*_):
        raise RuntimeError("a worker was lost")

    outcome = run_finetune(spec(road, seed=5), SHORT, broken)
    assert outcome.rows == [] and outcome.failures == ["tiny, finetune: RuntimeError: a worker was lost"]


def test_a_point_that_diverges_costs_that_point_alone(road):
    settings = dataclasses.replace(SHORT, learning_rates=(1e-3, 1e30), steps=40, seeds=1)
    outcome = run_finetune(spec(road, seed=7), settings)
    assert outcome.failures == [] and outcome.rows[0].chosen["lr"] == 1e-3
    assert outcome.rows[0].chosen["diverged"] == "lr 1e+30 x decay 1"
    assert outcome.notes == ["tiny, finetune: diverged and left out of the grid: lr 1e+30 x decay 1"]
    again = run_finetune(spec(road, seed=7), settings)
    assert again.num_skipped == 1 and again.notes == outcome.notes
    lost = run_finetune(spec(road, seed=7), dataclasses.replace(settings, learning_rates=(1e30,)))
    assert lost.rows == [] and "all 1 points of the grid diverged (lr 1e+30 x decay 1)" in lost.failures[0]
    assert "not finite in 20 steps in a row" in lost.failures[0]


def test_equal_weights_in_another_model_are_another_result(road, tmp_path):
    record = load_checkpoint(road[2])
    other = tmp_path / "hard"
    shutil.copytree(record.uri, other)
    edit_checkpoint(str(other), model={**record.model, "overlap": "hard"})
    runs = [finetune._FineTuneRun(spec(road, checkpoint=one), SHORT, train_here) for one in (road[2], str(other))]
    keys = {run._sweep_key() for run in runs}
    assert len(keys) == 2


def test_scores_of_a_confusion_equal_those_of_the_answers():
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 3, 50), rng.integers(0, 4, 50)
    counts = metrics.confusion(predicted, truth, 4)
    assert metrics.of_confusion(counts, "top1") == pytest.approx((truth == predicted).mean())
    expected = np.mean([(predicted[truth == c] == c).mean() for c in np.unique(truth)])
    assert metrics.of_confusion(counts, "mean_per_class") == pytest.approx(expected)


def test_the_run_of_a_task_draws_what_the_protocols_got(road):
    rows, chosen = TaskRun(spec(road)).drawn()
    assert sorted([*rows, *chosen]) == list(range(60)) and 4 <= len(chosen) <= 8
