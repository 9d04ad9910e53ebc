"""Long campaigns on real Ray and a real MLflow server: elastic groups, outages, ended drivers. `make soak` only."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.train.launch import LaunchConfig
from cluster.train.pretrain import launch_training, resolved
from focusvit.runs.metrics_log import MetricsLog
from focusvit.runs.run_dir import RunDir
from focusvit.runs.shipper import _shown
from focusvit.train.optim import OptimConfig
from testkit.mlflow_server import MlflowServer
from testkit.ray_head import RayHead
from testkit.ray_workers import Killer
from testkit.tiny_shards import make_dataset
from testkit.tiny_training import run_with_stops, small, values_of

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}  # tiny tensors: a second thread only waits
CONFIG = small(optim=OptimConfig(lr=1e-4, warmup_epochs=1), epochs=40)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_dataset(tmp_path_factory.mktemp("data"))


@pytest.mark.ray
def test_an_elastic_group_finishes_on_what_is_left(uri: str, tmp_path: Path) -> None:
    """2 -> 1 -> 2: the run is stopped at each size and goes on at the next, from its own checkpoints."""
    run_with_stops(CONFIG, uri, str(tmp_path / "alone"), 0)
    for workers in ("2", "1-1", "1-2"):
        launch = LaunchConfig(
            data=uri, run_dir=str(tmp_path / "run"), workers=workers, json=True,
            max_failures=0 if workers != "1-2" else 3,
            tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
        )  # fmt: skip
        killer = Killer(tmp_path / "run", times=1, after_points=8)
        if workers != "1-2":
            killer.start()
        try:
            launch_training(CONFIG, resolved(launch))
        except Exception as error:  # no retries: the kill ends this size of group
            assert "failed more than 0 times" in str(error)
        killer.over.set()
    ours, expected = values_of(tmp_path / "run"), values_of(tmp_path / "alone")
    assert ours.keys() == expected.keys()
    last = max(ours)
    assert ours[last]["train/loss"] == pytest.approx(expected[last]["train/loss"], rel=5e-3)


@pytest.mark.server
def test_a_server_that_is_away_for_a_while_gets_every_point(uri: str, tmp_path: Path) -> None:
    with MlflowServer(tmp_path / "server") as server:
        command = [
            sys.executable, "-m", "focusvit.cli", "pretrain", "debug",
            "--data", uri, "--run-dir", str(tmp_path / "run"),
            "--tracking-uri", server.url, "--local", "--json",
            "--epochs", "1000000", "--eval-every-epochs", "2000", "--log-every-steps", "50",
        ]  # fmt: skip
        process, run = (
            subprocess.Popen(command, stdout=subprocess.DEVNULL, env=ONE_THREAD),
            RunDir(str(tmp_path / "run")),
        )
        wait_for(lambda: num_points(run) > 20, process)
        server.stop()
        before = num_points(run)
        time.sleep(120)
        assert num_points(run) > before  # the training did not wait for the server
        server.start()
        after = num_points(run)
        wait_for(lambda: num_points(run) > after, process)
        process.terminate()
        assert process.wait(timeout=120) == 143
    with sqlite3.connect(tmp_path / "server" / "mlflow.db") as database:
        in_store = database.execute("select key, step from metrics").fetchall()
        assert database.execute("select status from runs").fetchall() == [("KILLED",)]
    points = MetricsLog(run).points
    assert sorted(in_store) == sorted((_shown(name), p["samples"]) for p in points for name in p["values"])


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, "KILLED"), (signal.SIGKILL, "KILLED")])
def test_a_driver_that_is_ended_marks_its_run_and_can_go_on(
    uri: str, tmp_path: Path, number: signal.Signals, status: str
) -> None:
    store = tmp_path / "mlflow.db"
    command = [
        sys.executable, "-m", "focusvit.cli", "pretrain", "debug",
            "--data", uri, "--run-dir", str(tmp_path / "run"),
        "--tracking-uri", f"sqlite:///{store}", "--local", "--epochs", "300", "--eval-every-epochs", "20", "--json",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=ONE_THREAD)
    checkpoints = tmp_path / "run" / "checkpoints"
    while not checkpoints.exists() or not list(checkpoints.glob("*/checkpoint.json")):
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, number)
    process.wait(timeout=60)
    run = RunDir(str(tmp_path / "run"))
    if number == signal.SIGTERM:  # there was time for a checkpoint: nothing is lost
        assert process.returncode == 143
        assert run.latest() == max(point["samples"] for point in MetricsLog(run).points)

    def seen() -> list[tuple[str]]:
        with sqlite3.connect(store) as database:
            return database.execute("select status from runs").fetchall()

    deadline = time.monotonic() + 60
    while seen() != [(status,)] and time.monotonic() < deadline:
        time.sleep(0.5)
    assert seen() == [(status,)]
    assert subprocess.run(command, stdout=subprocess.DEVNULL, env=ONE_THREAD, check=False).returncode == 0
    assert seen() == [("FINISHED",)]


@pytest.mark.ray
def test_a_preemption_notice_and_a_termination_on_ray_make_checkpoints(uri: str, tmp_path: Path) -> None:
    """A node is announced to go away: a checkpoint at once, training goes on. SIGTERM: another one, then the end."""
    run, store = RunDir(str(tmp_path / "run")), tmp_path / "mlflow.db"
    with RayHead(num_cpus=1) as head:
        head.add_node(num_cpus=1)
        address = f"{head.address()}:{head.gcs_port}"
        command = [
            str(head.bin / "python"), "-m", "focusvit.cli", "pretrain", "debug", "--data", uri, "--run-dir", run.uri,
            "--ray-address", address, "--workers", "2", "--cpus-per-worker", "1", "--epochs", "8000",
            "--eval-every-epochs", "8000", "--checkpoint-every-epochs", "8000",
            "--tracking-uri", f"sqlite:///{store}", "--json",
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=head.environment)
        wait_for(lambda: num_points(run) > 20, process)
        assert run.latest() is None
        (node,) = [row["node_id"] for row in head.alive_nodes() if not row["is_head_node"]]
        notice = [
            str(head.bin / "python"), str(head.bin / "ray"), "drain-node", "--address", address, "--node-id", node,
            "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot",
            "--deadline-remaining-seconds", "600",
        ]  # fmt: skip
        subprocess.run(notice, env=head.environment, check=True, capture_output=True)
        wait_for(lambda: run.latest() is not None, process)
        noticed = run.latest() or 0
        assert noticed % (50 * 32) == 0  # asked every 50 steps of 32 samples
        wait_for(lambda: MetricsLog(run).points[-1]["samples"] > noticed, process)  # and training went on
        process.terminate()
        assert process.wait(timeout=120) == 143
        assert run.latest() == max(point["samples"] for point in MetricsLog(run).points) > noticed
    with sqlite3.connect(store) as database:
        assert database.execute("select status from runs").fetchall() == [("KILLED",)]


def num_points(run: RunDir) -> int:
    metrics = Path(run.path("metrics.jsonl"))
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


def wait_for(ready: Callable[[], bool], process: subprocess.Popen, timeout_s: float = 300.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not ready():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
