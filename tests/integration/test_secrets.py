"""Passwords in the addresses that people type stay out of everything: output, logs, process lists, MLflow, files.

`make soak`. Real servers with users: a source, and an MLflow server; Ray with its log files; the UI on a terminal.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import requests

from testkit.checkout import ROOT
from testkit.guarded_source import guarded_source
from testkit.mlflow_server import MlflowServer
from testkit.ray_head import free_ports

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]
SECRET = "hunter2-and-hunter3"


class Campaign:
    """Runs verbs, keeps what they said and every command line of the processes that they started."""

    def __init__(self, folder: Path, ray: str = "") -> None:
        self.folder, self.ray, self.said, self.seen = folder, ray or str(folder), "", set[str]()
        self.environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true",
            "RAY_TMPDIR": self.ray, "RAY_USAGE_STATS_ENABLED": "0",
        }  # fmt: skip
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
            self.environment.pop(name, None)

    def focusvit(self, *words: object, expect: int = 0, **variables: str) -> str:
        command = [sys.executable, "-m", "focusvit.cli", *map(str, words)]
        process = subprocess.Popen(
            command, cwd=self.folder, env={**self.environment, **variables},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        with self.watching(process.pid):
            said = process.communicate(timeout=300)[0]
        self.seen.discard(" ".join(command))  # as it was typed: a child shows it until it becomes another program
        assert process.returncode == expect, said
        self.said += said
        return said

    def watching(self, pid: int) -> "Watch":
        return Watch(pid, self.seen)

    def files_with_the_secret(self) -> list[str]:
        return [
            str(path) for folder in (self.folder, Path(self.ray)) for path in folder.rglob("*")
            if path.is_file() and not path.is_symlink() and SECRET.encode() in path.read_bytes()
        ]  # fmt: skip


class Watch:
    """The command lines of all descendants of a process, as `ps` shows them to everyone, until the end."""

    def __init__(self, pid: int, seen: set[str]) -> None:
        self._pid, self._seen, self._done = pid, seen, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._done.wait(0.05):
            try:
                for child in psutil.Process(self._pid).children(recursive=True):
                    self._seen.add(" ".join(child.cmdline()))
            except psutil.Error:
                continue

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()


def until(ready: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_addresses_with_passwords_leave_no_trace(tmp_path):
    users = {"MLFLOW_AUTH_ADMIN_PASSWORD": SECRET, "MLFLOW_FLASK_SERVER_SECRET_KEY": "k" * 64}
    with (
        tempfile.TemporaryDirectory(prefix="ray-") as ray,  # short: a path of a socket may have 107 bytes
        guarded_source("me", SECRET) as source,
        MlflowServer(tmp_path / "mlflow", "--app-name", "basic-auth", environment=users) as server,
    ):
        campaign = Campaign(tmp_path, ray)
        place = server.url.replace("://", f"://admin:{SECRET}@")
        campaign.focusvit("preprocess", "--source", source, "--out", "shards", "--split", "train", "--workers", 1)
        train = ["pretrain", "debug", "--data", "shards", "--local", "--device", "cpu", "--global-batch", 4,
                 "--data.eval-split", "train", "--run-dir"]  # fmt: skip
        campaign.focusvit(*train, "run", "--tracking-uri", place)
        campaign.focusvit(*train, "run", "--tracking-uri", place)  # again, on the address that the run remembers
        campaign.focusvit(*train, "other", MLFLOW_TRACKING_URI=place)
        auth = ("admin", SECRET)
        found = requests.post(
            f"{server.url}/api/2.0/mlflow/runs/search", json={"experiment_ids": ["1"]}, auth=auth, timeout=20
        )
        assert [run["info"]["status"] for run in found.json()["runs"]] == ["FINISHED"] * 2
        assert SECRET not in found.text
        wrong = server.url.replace("://", "://admin:wrong@")
        assert "Traceback" not in campaign.focusvit(*train, "third", "--tracking-uri", wrong, expect=2)
        gone = f"postgresql://me:{SECRET}@127.0.0.1:1/mlflow"
        for verb in (["ui"], [*train, "fourth"]):
            assert "Traceback" not in campaign.focusvit(*verb, "--tracking-uri", gone, expect=2)
        assert list(Path(ray).rglob("*.log")) and campaign.files_with_the_secret() == []
    assert SECRET not in campaign.said and "me:***@" in campaign.said
    assert campaign.seen and not [line for line in campaign.seen if SECRET in line]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_real_ui_opens_the_runs_hides_its_store_and_ends_quietly(tmp_path, number):
    from focusvit.runs.tracker import Tracker

    store = f"sqlite:///{tmp_path}/hidden-name.db"
    with Tracker.open(store, "focusvit", "one") as tracker:
        tracker.metrics([("val/top1", 1, 0.5, 1000)])
    (port,) = free_ports(1)
    campaign, output = Campaign(tmp_path), tmp_path / "output"
    command = [sys.executable, "-m", "focusvit.cli", "ui", "--tracking-uri", store, "--port", str(port)]
    with output.open("wb") as said:
        process = subprocess.Popen(command, env=campaign.environment, stdout=said, stderr=said, start_new_session=True)
        with campaign.watching(process.pid):
            until(lambda: b"viewStateShareKey=focusvit" in output.read_bytes(), 120)
            assert requests.get(f"http://127.0.0.1:{port}/", timeout=20).status_code == 200
            process.send_signal(number)
            assert process.wait(30) == 0
    text = output.read_text()
    assert text.count("\n") == 4 and "Traceback" not in text and "GET /" not in text, text
    assert any("mlflow" in line for line in campaign.seen)
    assert not [line for line in campaign.seen if "hidden-name" in line]
