"""The suite on Ray: tasks side by side, one that dies, fine-tuning on two workers, scores while a training goes on."""

import json
from pathlib import Path

import pytest

from cluster import ray_session as ray_session_module
from cluster.ray_session import ray_session
from cluster.train.checkpoint_scores import POINTS, scored_checkpoints
from cluster.train.transfers import TransferLaunch, _side_by_side
from focusvit.cli import main
from focusvit.runs.metrics_log import MetricsLog
from focusvit.runs.run_dir import RunDir
from testkit import failing_task
from testkit.tiny_checkpoint import make_checkpoint
from testkit.tiny_shards import make_dataset
from transfer.checkpoint_score import ScoreSpec, score_checkpoint
from transfer.tasks.known_tasks import parse_task
from transfer.tasks.spec import WorkSpec
from transfer.tasks.task import Task
from transfer.work import run_task

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module", autouse=True)
def ray_here():
    """One Ray for the file: each start costs seconds. Its workers find the work of this file in the testkit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_session_module, "PASSED_ON", (*ray_session_module.PASSED_ON, "PYTHONPATH"))
        patch.setenv("PYTHONPATH", str(Path(failing_task.__file__).parent.parent))
        with ray_session():
            yield


def test_tasks_side_by_side_give_the_rows_of_one_process_and_survive_a_dead_worker(tmp_path):
    checkpoint = make_checkpoint(tmp_path / "ckpt")
    places = {name: make_dataset(tmp_path / name, splits={"train": 24, "val": 8}) for name in ("a", "killer", "b")}

    def specs(out: str) -> list[WorkSpec]:
        return [
            WorkSpec(
                task=Task(name=name, uri=uri), checkpoint=checkpoint, suite="quick", baselines=False,
                out=str(tmp_path / out), features_folder=str(tmp_path / out / name),
            )
            for name, uri in places.items()
        ]  # fmt: skip

    map_tasks = _side_by_side(TransferLaunch(checkpoint=checkpoint, tasks_at_once=2))
    found = {outcome.task.name: outcome for outcome in map_tasks(failing_task.transfer_or_die, specs("ray"))}
    assert set(found) == {"a", "killer", "b"}
    assert found["killer"].rows == [] and "killer: its Ray worker died" in found["killer"].failures[0]
    for spec in specs("here"):
        if spec.task.name != "killer":
            expected = run_task(spec)
            mine = found[spec.task.name]
            assert mine.failures == expected.failures == []
            assert [row.value for row in mine.rows] == pytest.approx([row.value for row in expected.rows], abs=1e-6)


@pytest.mark.soak
def test_the_command_fine_tunes_on_two_workers_and_lists_what_failed(tmp_path, capsys):
    checkpoint = make_checkpoint(tmp_path / "ckpt")
    data = make_dataset(tmp_path / "data", splits={"train": 40, "val": 12})
    argv = ["transfer", "--checkpoint", checkpoint, "--task", f"tiny={data}", "--task", f"gone={tmp_path / 'none'}"]
    argv += ["--no-baselines", "--tasks-at-once", "2", "--finetune", "--finetune-steps", "2", "--workers", "2"]
    argv += ["--out", str(tmp_path / "out"), "--tracking-uri", f"sqlite:///{tmp_path / 'mlflow.db'}"]
    assert main(argv) == 1
    assert "failed: gone: " in capsys.readouterr().err
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    (tuned,) = [row for row in rows if row["protocol"] == "finetune"]
    assert tuned["interval"] == "t over 3 draws" and tuned["chosen"]["steps"] == 2 and len(rows) > 3


def test_checkpoints_that_stand_are_scored_once_and_in_order(tmp_path):
    run = RunDir(str(tmp_path / "run"))
    for samples, seed in ((64, 0), (128, 1)):
        make_checkpoint(Path(run.checkpoint_uri(samples)), seed=seed, samples_seen=samples)
    task = f"shapes={make_dataset(tmp_path / 'shapes', splits={'train': 40, 'val': 12})}"
    for _ in range(2):  # the second time finds nothing to do
        with scored_checkpoints(run.uri, task):
            pass
        points = MetricsLog(run, name=POINTS).points
        assert [point["samples"] for point in points] == [64, 128]
    expected = score_checkpoint(ScoreSpec(checkpoint=run.checkpoint_uri(128), task=parse_task(task)))
    assert points[1]["values"] == pytest.approx(expected)


@pytest.mark.soak
def test_every_checkpoint_of_a_training_is_scored_beside_it_and_tracked(tmp_path, capsys):
    import mlflow

    data = make_dataset(tmp_path / "data", splits={"train": 64, "val": 12})
    shapes = make_dataset(tmp_path / "shapes", splits={"train": 40, "val": 12})
    store, run_dir = f"sqlite:///{tmp_path / 'mlflow.db'}", str(tmp_path / "run")
    argv = ["pretrain", "debug", "--data", data, "--run-dir", run_dir, "--workers", "1", "--device", "cpu"]
    argv += ["--score-on", f"shapes={shapes}", "--epochs", "3", "--tracking-uri", store, "--json"]
    assert main(argv) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    points = {point["samples"]: point["values"] for point in MetricsLog(RunDir(run_dir), name=POINTS).points}
    assert summary["samples_seen"] in points  # earlier ones too, unless the training replaced them within a second
    for values in points.values():
        for name in ("knn", "5_shot"):
            low, value, high = (values[f"transfer/shapes/{name}{end}"] for end in ("_low", "", "_high"))
            assert 0 <= low <= value <= high <= 1
        assert 0.2 < values["transfer/shapes/chance"] < 0.5
    client = mlflow.MlflowClient(tracking_uri=store)
    history = client.get_metric_history(summary["run_id"], "transfer/shapes/knn")
    assert [point.step for point in history] == sorted(points)
    assert [point.value for point in history] == pytest.approx(
        [points[step]["transfer/shapes/knn"] for step in sorted(points)]
    )
    assert not list((tmp_path / "run" / "scored").rglob("*.safetensors"))  # the copies have served


def test_a_wrong_task_to_score_on_is_said_before_the_training(tmp_path, capsys):
    data = make_dataset(tmp_path / "data", splits={"train": 12, "val": 4})
    argv = ["pretrain", "debug", "--data", data, "--run-dir", str(tmp_path / "run"), "--score-on", "x=/nowhere"]
    assert main(argv) == 2
    assert "/nowhere holds no data set" in capsys.readouterr().err and not (tmp_path / "run" / "checkpoints").exists()
