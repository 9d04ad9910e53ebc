"""The road on a real cluster: a Ray head and further raylets with token authentication, and an MLflow server on HTTP.

Long: `make soak`. Everything goes through `focusvit submit`, as a user would type it.
"""

import json
import os
import sys
import time
from pathlib import Path

import pytest

from cluster.jobs.environment import SECRETS_FILE
from pipeline.shards.dataset import open_dataset
from pipeline.sources.embedded import write_shapes
from testkit.mlflow_server import MlflowServer
from testkit.on_cluster import Cluster
from testkit.ray_head import BIN, RayHead
from testkit.terminal import Terminal
from testkit.tiny_shards import make_dataset

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]  # starting and ending real servers counts too
OUTAGE_S = float(os.environ.get("FOCUSVIT_OUTAGE_S", "120"))
REAL = os.environ.get("FOCUSVIT_DATA")
NUM = {"train": 96, "val": 48}
SHARDS = ("--samples-per-shard", 16)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("campaign")
    with RayHead(num_cpus=1) as head, MlflowServer(folder / "mlflow") as server:
        head.add_node(num_cpus=1)
        cluster = Cluster(head, server, folder)
        yield cluster
        assert list(cluster.temporary.iterdir()) == []


@pytest.fixture(scope="module")
def images(cluster) -> Path:
    """Full-size ImageNet photos where $FOCUSVIT_DATA has them (the same ones to train and to score), else shapes."""
    folder = cluster.folder / "images"
    if REAL and Path(REAL, "imagenet-sample", "train").is_dir():
        folder.mkdir()
        for split in NUM:
            (folder / split).symlink_to(Path(REAL, "imagenet-sample", "train"))
    else:
        write_shapes(folder, train_per_class=40, val_per_class=6)
    return folder


@pytest.fixture(scope="module")
def shards(cluster, images):
    """The data set that jobs on the cluster made."""
    out = cluster.folder / "shards"
    for split, count in NUM.items():
        said = cluster.submit(*preprocess(images, out, split, "--max-samples", count, *SHARDS))
        assert "2 nodes run code" in said
    return out


@pytest.fixture(scope="module")
def task(cluster, shards):
    """What the transfer suite measures: it needs several images of each class, and no two photos share one."""
    source = Path(REAL or "", "tiny-imagenet-40")
    if not source.is_dir():
        return shards
    out = cluster.folder / "task"
    for split, count in {"train": 240, "val": 80}.items():
        cluster.submit(*preprocess(source, out, split, "--max-samples", count))
    return out


@pytest.fixture(scope="module")
def tiny(cluster) -> str:
    """A data set for the tests that are about training only."""
    return make_dataset(cluster.folder / "tiny", splits=NUM)


def preprocess(source, out, split, *more):
    return ("preprocess", "--source", source, "--out", out, "--split", split, *more)


def wait_until(condition, timeout_s: float, what: str) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, f"{what} did not happen within {timeout_s} s"
        time.sleep(0.5)


def test_the_cluster_writes_the_bytes_of_the_laptop(cluster, images, shards, tmp_path):
    for split, count in NUM.items():
        argv = preprocess(images, tmp_path / "local", split, "--max-samples", count, *SHARDS)
        cluster.focusvit(*argv, "--local")
        local, submitted = (open_dataset(str(place)).split(split) for place in (tmp_path / "local", shards))
        assert local.num_samples == count and local.root_hash == submitted.root_hash


def test_a_node_killed_while_preprocessing_costs_nothing(cluster, images, tmp_path):
    extra = cluster.head.add_node(num_cpus=1)
    lost, out = cluster.head.node_id(extra), tmp_path / "killed"
    argv = ("--max-samples", 320, "--samples-per-shard", 20)
    job = cluster.start(*preprocess(images, out, "train", *argv))

    def works() -> bool:
        return any(row["node_id"] == lost and row["state"] == "RUNNING" for row in cluster.tasks(job, "run_shard"))

    wait_until(lambda: len(list(out.glob("train-*.tar"))) >= 2 and works(), 240, "a shard begun on the third node")
    cluster.head.kill(extra)
    wait_until(
        lambda: (cluster.metric("focusvit_images_total", job) or 0) >= 20, 60, "a count of images for Prometheus"
    )
    cluster.finish(job)
    status = cluster.status(job)
    assert status["status"] == "SUCCEEDED" and status["bar"]["more"] == "shards=16/16, bad=0"
    cluster.focusvit(*preprocess(images, tmp_path / "local", "train", *argv), "--local")
    local, submitted = (open_dataset(str(place)).split("train") for place in (tmp_path / "local", out))
    assert submitted.root_hash == local.root_hash
    tasks = cluster.tasks(job, "run_shard")
    failed = [row for row in tasks if row["state"] == "FAILED"]
    assert failed and {row["node_id"] for row in failed} == {lost}, "no shard was lost with the node"
    assert len(tasks) == submitted.info.num_shards + len(failed), "each lost shard was made once more, no other"
    assert status["retries"] == len(failed), "and `jobs status` says so"
    logged = {line["shard"] for line in cluster.log_lines("shard finished", job)}
    assert logged == {path.name for path in out.glob("train-*.tar")}


def test_the_road_logs_into_the_server(cluster, shards, task):
    run_dir = cluster.folder / "runs" / "pretrain"
    train = ("--workers", 2, "--device", "cpu", "--cpus-per-worker", 1)
    job = cluster.start("pretrain", "debug", "--data", shards, "--run-dir", run_dir, *train)
    cluster.finish(job)
    workers = cluster.train_workers(job)
    assert len(workers) == 2 and {row["node_id"] for row in workers} == cluster.node_ids(), "one worker on each node"
    lines = cluster.log_lines("worker started", job)
    run_id = json.loads((run_dir / "run.json").read_text())["run_id"]
    assert sorted((line["rank"], line["run"]) for line in lines) == [(0, run_id), (1, run_id)]
    cluster.submit(
        "finetune", "--checkpoint", run_dir, "--data", shards, "--run-dir", cluster.folder / "runs" / "tune", *train,
        "--epochs", 1,
    )  # fmt: skip
    cluster.submit("transfer", "--checkpoint", run_dir, "--task", f"own={task}", "--out", cluster.folder / "transfer")
    pretrain, tune = sorted(cluster.runs(), key=lambda run: run["info"]["start_time"])
    assert [run["info"]["status"] for run in (pretrain, tune)] == ["FINISHED", "FINISHED"]
    steps = [step for step, _ in cluster.points(pretrain["info"]["run_id"], "train/loss")]
    assert steps and len(steps) == len(set(steps))
    assert len(cluster.runs("transfer")) >= 2  # the suite and its tasks


def test_a_node_killed_while_training_costs_the_steps_since_the_checkpoint(cluster, tiny):
    extra = cluster.head.add_node(num_cpus=1)
    lost, kept, run_dir = cluster.head.node_id(extra), cluster.node_ids(), cluster.folder / "runs" / "killed"
    job = cluster.start(
        "pretrain", "debug", "--data", tiny, "--run-dir", run_dir, "--workers", "1-3", "--device", "cpu",
        "--cpus-per-worker", 1, "--epochs", 40, "--checkpoint-every-epochs", 2, "--eval-every-epochs", 10,
    )  # fmt: skip
    wait_until(lambda: len(list(run_dir.glob("checkpoints/*/checkpoint.json"))) >= 2, 240, "the second checkpoint")
    before = cluster.train_workers(job)
    assert {row["node_id"] for row in before if row["state"] == "ALIVE"} == kept, "three workers, one on each node"
    cluster.head.kill(extra)
    cluster.finish(job)
    assert cluster.status(job)["status"] == "SUCCEEDED"
    started = [row for row in cluster.train_workers(job) if row["actor_id"] not in {one["actor_id"] for one in before}]
    assert started and lost not in {row["node_id"] for row in started}, "the group started again without the node"
    info = json.loads((run_dir / "run.json").read_text())
    assert info["starts"] == 1, "the driver itself went on"
    steps = [step for step, _ in cluster.points(info["run_id"], "train/loss")]
    assert len(steps) == len(set(steps)) and max(steps) == 40 * NUM["train"]
    assert [run["info"]["run_id"] for run in cluster.runs()].count(info["run_id"]) == 1


def test_an_outage_of_the_server_loses_no_point(cluster, tiny):
    run_dir = cluster.folder / "runs" / "outage"
    job = cluster.start(
        "pretrain", "debug", "--data", tiny, "--run-dir", run_dir, "--workers", 2, "--device", "cpu",
        "--cpus-per-worker", 1, "--epochs", 20_000, "--checkpoint-every-epochs", 50, "--eval-every-epochs", 100,
        "--log-every-steps", 6,
    )  # fmt: skip
    written = run_dir / "metrics.jsonl"

    def kept() -> list[int]:
        lines = written.read_text().splitlines(keepends=True) if written.exists() else []
        points = [json.loads(line) for line in lines if line.endswith("\n")]
        return [point["samples"] for point in points if "train/loss" in point["values"]]

    wait_until(lambda: len(kept()) >= 5, 240, "the fifth point")
    run_id = json.loads((run_dir / "run.json").read_text())["run_id"]
    cluster.server.stop()
    before = kept()
    time.sleep(OUTAGE_S)
    during = kept()
    assert len(during) > len(before), "training stood still while the server was away"
    cluster.server.start()
    # 60 s is the longest pause between two tries.
    wait_until(lambda: set(during) <= set(has(cluster, run_id)), 120, "every point of the outage on the server")
    assert cluster.status(job)["status"] == "RUNNING"
    cluster.focusvit("jobs", "stop", job)
    at_end, sent = kept(), sorted(has(cluster, run_id))
    assert at_end[1:] == [6 * 32 * number for number in range(1, len(at_end))], "every sixth step, and the first"
    assert len(sent) >= len(during) and sent == at_end[: len(sent)], "workers may write a last point after the stop"
    sys.stderr.write(f"{len(before)} points before, {len(during) - len(before)} while the server was away for "
                     f"{OUTAGE_S:.0f} s, {len(at_end)} at the end, {len(sent)} on the server\n")  # fmt: skip


def has(cluster, run_id: str) -> list[int]:
    return [step for step, _ in cluster.points(run_id, "train/loss")]


def test_ctrl_c_asks_and_stopping_closes_the_run(cluster, tiny):
    run_dir = cluster.folder / "runs" / "stopped"
    command = (
        "submit", "--name", "to-be-stopped", "--", "pretrain", "debug", "--data", tiny, "--run-dir", run_dir,
        "--workers", 2, "--device", "cpu", "--cpus-per-worker", 1, "--epochs", 20_000,
    )  # fmt: skip
    with Terminal([BIN / "focusvit", *command], cluster.environment) as terminal:
        terminal.wait_for("\rtrain:", 240)  # the bar, in its place
        job = "to-be-stopped"
        wait_until(lambda: cluster.status(job)["progress"] != "", 60, "a progress bar in the log")
        shown = cluster.focusvit("jobs", "status", job).stdout
        assert "img/s" in shown and "left" in shown
        wait_until(lambda: cluster.metric("focusvit_train_images_per_s", job), 60, "the throughput for Prometheus")
        terminal.type("\x03")
        terminal.wait_for("[s]top it, [d]etach", 60)
        terminal.type("s\n")
        assert terminal.end(60) == 130
    wait_until(lambda: cluster.status(job)["status"] == "STOPPED", 60, "the end of the job")
    run_id = json.loads((run_dir / "run.json").read_text())["run_id"]
    status = {run["info"]["run_id"]: run["info"]["status"] for run in cluster.runs()}[run_id]
    assert status in ("KILLED", "FAILED")


def test_no_secret_is_in_anything_that_was_written(cluster):
    """Shards, runs, the MLflow store, Ray's logs, what the commands said; the one file that Ray unpacks apart."""
    files = [path for place in (cluster.folder, cluster.head.folder) for path in place.rglob("*") if path.is_file()]
    held = {path.name for path in files if cluster.secret.encode() in path.read_bytes()}
    assert held <= {SECRETS_FILE, "token"} and cluster.secret not in cluster.said
    logs = [path for path in files if "logs" in path.parts]
    token = cluster.head.token_path.read_bytes()
    assert len(logs) > 20 and not [path for path in logs if token in path.read_bytes()]
    assert not [path for path in cluster.folder.rglob("*") if path.is_file() and token in path.read_bytes()]
