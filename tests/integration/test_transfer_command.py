"""`focusvit transfer` for real: two tasks, one of them broken, into a real sqlite MLflow store."""

import json

import pytest

from focusvit.cli import main
from testkit.tiny_checkpoint import make_checkpoint
from testkit.tiny_shards import make_dataset

pytestmark = pytest.mark.timeout(400)


def test_a_suite_with_a_failing_task_lists_it_and_keeps_the_rest(tmp_path, capsys):
    import mlflow

    data = make_dataset(tmp_path / "data", splits={"train": 40, "val": 16})
    checkpoint = make_checkpoint(tmp_path / "ckpt")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    argv = ["transfer", "--checkpoint", checkpoint, "--task", f"tiny={data}", "--task", f"gone={tmp_path / 'none'}"]
    argv += ["--suite", "quick", "--out", str(tmp_path / "out"), "--tracking-uri", uri]
    assert main(argv) == 1
    out, err = capsys.readouterr()
    assert "tiny" in out and "95 % interval" in out and "failed: gone: " in err

    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(found["failures"]) == 1 and {row["task"] for row in found["rows"]} == {"tiny"}
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("transfer")
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if run.data.tags["focusvit.kind"] == "transfer"]
    children = [run for run in runs if run.data.tags["focusvit.kind"] == "transfer task"]
    assert len(parents) == 1 and parents[0].data.tags["failed"] == "1" and parents[0].info.status == "FINISHED"
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parents[0].info.run_id}
    assert len(children) == len({(row["features"], row["protocol"]) for row in found["rows"]})
    knn = next(
        run for run in children if run.data.tags["protocol"] == "knn" and run.data.tags["features"] == "checkpoint"
    )
    assert knn.data.params["T"] == "0.07" and knn.data.metrics["chance"] == pytest.approx(0.25)
    assert knn.data.metrics["top1_low"] <= knn.data.metrics["top1"] <= knn.data.metrics["top1_high"]
    assert knn.inputs.dataset_inputs[0].dataset.name == "tiny"
    artifacts = [file.path for file in client.list_artifacts(knn.info.run_id, "scores")]
    assert artifacts == ["scores/confusion_matrix.png", "scores/per_class.json"]

    again = [value for value in argv if value not in (f"gone={tmp_path / 'none'}",)]
    del again[again.index("--task", again.index("--task") + 1)]
    assert main(again) == 0
    protocols = {(row["features"], row["protocol"]) for row in found["rows"]}
    assert f"{len(protocols)} protocols found finished" in capsys.readouterr().out


def test_wrong_usage_is_one_line(tmp_path, capsys):
    checkpoint = make_checkpoint(tmp_path / "ckpt")
    assert main(["transfer", "--checkpoint", checkpoint]) == 2
    assert "no task is named" in capsys.readouterr().err
    assert main(["transfer", "--checkpoint", str(tmp_path), "--task", "a=b"]) == 2
    assert "No checkpoint" in capsys.readouterr().err
