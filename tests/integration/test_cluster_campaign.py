"""The road on a real cluster: a Ray head and further raylets with token authentication, and an MLflow server on HTTP.

Long: `make soak`. Everything goes through `focusvit submit`, as a user would type it.
"""

import json
import os
import time

import pytest
from testkit.mlflow_server import MlflowServer
from testkit.on_cluster import Cluster
from testkit.ray_head import RayHead

from pipeline.dataset import open_dataset
from pipeline.embedded import write_shapes

pytestmark = pytest.mark.soak
OUTAGE_S = float(os.environ.get("FOCUSVIT_OUTAGE_S", "120"))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("campaign")
    write_shapes(folder / "images", train_per_class=24, val_per_class=6)
    with RayHead(num_cpus=1) as head, MlflowServer(folder / "mlflow") as server:
        head.add_node(num_cpus=1)
        yield Cluster(head, server, folder)


@pytest.fixture(scope="module")
def shards(cluster):
    """The data set that jobs on the cluster made."""
    out = cluster.folder / "shards"
    for split in ("train", "val"):
        said = cluster.submit(*preprocess(cluster.folder / "images", out, split, "--samples-per-shard", 16))
        assert "2 nodes run code" in said
    return out


def preprocess(source, out, split, *more):
    return ("preprocess", "--source", source, "--out", out, "--split", split, *more)


def wait_until(condition, timeout_s: float, what: str) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, f"{what} did not happen within {timeout_s} s"
        time.sleep(0.5)


def test_the_cluster_writes_the_bytes_of_the_laptop(cluster, shards, tmp_path):
    for split in ("train", "val"):
        argv = preprocess(cluster.folder / "images", tmp_path / "local", split, "--samples-per-shard", 16)
        cluster.focusvit(*argv, "--local")
        local, submitted = (open_dataset(str(place)).split(split) for place in (tmp_path / "local", shards))
        assert local.root_hash == submitted.root_hash


def test_a_node_killed_while_preprocessing_costs_nothing(cluster, shards, tmp_path):
    extra = cluster.head.add_node(num_cpus=1)
    out = tmp_path / "killed"
    job = cluster.start(*preprocess(cluster.folder / "images", out, "train", "--samples-per-shard", 16))
    wait_until(lambda: len(list(out.glob("train-*.tar"))) >= 2, 240, "the second shard")
    cluster.head.kill(extra)
    cluster.finish(job)
    assert cluster.status(job)["status"] == "SUCCEEDED"
    assert open_dataset(str(out)).split("train").root_hash == open_dataset(str(shards)).split("train").root_hash


def test_the_road_logs_into_the_server(cluster, shards):
    run_dir = cluster.folder / "runs" / "pretrain"
    train = ("--workers", 2, "--device", "cpu", "--cpus-per-worker", 1)
    cluster.submit("pretrain", "debug", "--data", shards, "--run-dir", run_dir, *train)
    cluster.submit(
        "finetune", "--checkpoint", run_dir, "--data", shards, "--run-dir", cluster.folder / "runs" / "tune", *train,
        "--epochs", 1,
    )  # fmt: skip
    task = f"shapes={shards}"
    cluster.submit("transfer", "--checkpoint", run_dir, "--task", task, "--out", cluster.folder / "transfer")
    pretrain, tune = sorted(cluster.runs(), key=lambda run: run["info"]["start_time"])
    assert [run["info"]["status"] for run in (pretrain, tune)] == ["FINISHED", "FINISHED"]
    steps = [step for step, _ in cluster.points(pretrain["info"]["run_id"], "train/loss")]
    assert steps and len(steps) == len(set(steps))
    assert len(cluster.runs("transfer")) >= 2  # the suite and its tasks


def test_a_node_killed_while_training_costs_the_steps_since_the_checkpoint(cluster, shards):
    extra = cluster.head.add_node(num_cpus=1)
    run_dir = cluster.folder / "runs" / "killed"
    job = cluster.start(
        "pretrain", "debug", "--data", shards, "--run-dir", run_dir, "--workers", "1-3", "--device", "cpu",
        "--cpus-per-worker", 1, "--epochs", 40, "--checkpoint-every-epochs", 2, "--eval-every-epochs", 10,
    )  # fmt: skip
    wait_until(lambda: len(list(run_dir.glob("checkpoints/*/checkpoint.json"))) >= 2, 240, "the second checkpoint")
    cluster.head.kill(extra)
    cluster.finish(job)
    assert cluster.status(job)["status"] == "SUCCEEDED"
    info = json.loads((run_dir / "run.json").read_text())
    steps = [step for step, _ in cluster.points(info["run_id"], "train/loss")]
    assert len(steps) == len(set(steps)) and max(steps) == 40 * 192
    assert [run["info"]["run_id"] for run in cluster.runs()].count(info["run_id"]) == 1


def test_an_outage_of_the_server_loses_no_point(cluster, shards):
    run_dir = cluster.folder / "runs" / "outage"
    job = cluster.start(
        "pretrain", "debug", "--data", shards, "--run-dir", run_dir, "--workers", 2, "--device", "cpu",
        "--cpus-per-worker", 1, "--epochs", 400, "--checkpoint-every-epochs", 50, "--eval-every-epochs", 100,
        "--log-every-steps", 6,
    )  # fmt: skip
    written = run_dir / "metrics.jsonl"

    def num_points() -> int:
        return len(written.read_text().splitlines()) if written.exists() else 0

    wait_until(lambda: num_points() >= 5, 240, "the fifth point")
    cluster.server.stop()
    before = num_points()
    time.sleep(OUTAGE_S)
    during = num_points()
    still_training = cluster.status(job)["status"] == "RUNNING"
    cluster.server.start()
    cluster.finish(job)
    assert during > before and still_training, "training stood still, or was over, while the server was away"
    info = json.loads((run_dir / "run.json").read_text())
    lines = [json.loads(line) for line in written.read_text().splitlines()]
    kept = [line["samples"] for line in lines if "train/loss" in line["values"]]
    assert [step for step, _ in sorted(cluster.points(info["run_id"], "train/loss"))] == sorted(kept)


def test_stopping_a_job_closes_its_run(cluster, shards):
    run_dir = cluster.folder / "runs" / "stopped"
    job = cluster.start(
        "pretrain", "debug", "--data", shards, "--run-dir", run_dir, "--workers", 2, "--device", "cpu",
        "--cpus-per-worker", 1, "--epochs", 2000,
    )  # fmt: skip
    wait_until(lambda: (run_dir / "metrics.jsonl").exists(), 240, "the first point")
    wait_until(lambda: cluster.status(job)["progress"] != "", 60, "a progress bar in the log")
    shown = cluster.focusvit("jobs", "status", job).stdout
    assert "img/s" in shown and "left" in shown
    assert "STOPPED" in cluster.focusvit("jobs", "stop", job).stdout
    run_id = json.loads((run_dir / "run.json").read_text())["run_id"]
    status = {run["info"]["run_id"]: run["info"]["status"] for run in cluster.runs()}[run_id]
    assert status in ("KILLED", "FAILED")
