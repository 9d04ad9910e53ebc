"""Real Ray Train, real gloo workers, a real MLflow store: what one process does, many do, through kills."""

import dataclasses
import re
import sqlite3
from pathlib import Path

import pytest

from cluster.jobs.progress_lines import worker_failures
from cluster.train.launch import LaunchConfig
from cluster.train.pretrain import launch_training, resolved
from focusvit.runs.metrics_log import MetricsLog
from focusvit.runs.run_dir import RunDir
from focusvit.runs.shipper import _shown
from focusvit.train.optim import OptimConfig
from testkit.ray_workers import Killer
from testkit.tiny_shards import make_dataset
from testkit.tiny_training import run_with_stops, small, values_of

CONFIG = small(optim=OptimConfig(lr=1e-4, warmup_epochs=1))


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_dataset(tmp_path_factory.mktemp("data"))


def launch(uri: str, folder: Path, **changes: object) -> LaunchConfig:
    config = LaunchConfig(
        data=uri, run_dir=str(folder / "run"), workers="2", tracking_uri=f"sqlite:///{folder}/mlflow.db", json=True
    )
    return resolved(dataclasses.replace(config, **changes))  # type: ignore[arg-type]


def rows(folder: Path, query: str) -> list[tuple]:
    with sqlite3.connect(folder / "mlflow.db") as database:
        return database.execute(query).fetchall()


def check_store(folder: Path) -> None:
    """One finished run; every point of the run directory in it once."""
    assert rows(folder, "select status from runs") == [("FINISHED",)]
    in_store = sorted(rows(folder, "select key, step, value from metrics where key not like 'best/%'"))
    points = MetricsLog(RunDir(str(folder / "run"))).points
    in_file = sorted((_shown(name), p["samples"], value) for p in points for name, value in p["values"].items())
    assert [(k, s) for k, s, _ in in_store] == [(k, s) for k, s, _ in in_file]
    assert len({(k, s) for k, s, _ in in_store}) == len(in_store)


def check_values(folder: Path, reference: Path) -> None:
    ours, expected = values_of(folder / "run"), values_of(reference)
    assert ours.keys() == expected.keys()
    for samples, values in expected.items():
        for name, value in values.items():
            assert ours[samples][name] == pytest.approx(value, rel=5e-3, abs=5e-4), (samples, name)


@pytest.mark.ray
@pytest.mark.soak
def test_a_killed_worker_changes_nothing(uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run_with_stops(CONFIG, uri, str(tmp_path / "alone"), 0)
    killer = Killer(tmp_path / "run", times=1, after_points=4)
    killer.start()
    summary = launch_training(CONFIG, launch(uri, tmp_path))
    killer.over.set()
    assert len(killer.killed) == 1
    (failure,) = worker_failures(caplog.text)  # the driver says it: Ray's own log stays with its controller
    assert re.match(r"seen at rank \d: \w*", failure), failure
    assert summary["samples_seen"] == CONFIG.num_steps(50) * CONFIG.global_batch
    check_store(tmp_path)
    check_values(tmp_path, tmp_path / "alone")
    again = launch_training(
        CONFIG, launch(uri, tmp_path, local=True, workers="1")
    )  # nothing left to do: the same run, no new point
    assert again["run_id"] == summary["run_id"]
    check_store(tmp_path)


@pytest.mark.ray
@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_five_random_kills_on_ray_end_in_the_same_loss(uri: str, tmp_path: Path) -> None:
    """Ray starts new worker processes each time, which takes long; `test_training_kills.py` has the other twenty."""
    config = dataclasses.replace(CONFIG, epochs=20)
    run_with_stops(config, uri, str(tmp_path / "alone"), 0)
    killer = Killer(tmp_path / "run", times=5, after_points=3)
    killer.start()
    launch_training(config, launch(uri, tmp_path, max_failures=10))
    killer.over.set()
    assert len(killer.killed) == 5
    check_store(tmp_path)
    check_values(tmp_path, tmp_path / "alone")
