"""A second training in a run directory is refused, naming the first; one that is gone holds nothing."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.train import holder
from cluster.train.holder import held
from focusvit.runs.run_dir import RunDir
from pipeline.errors import UsageError
from pipeline.io import storage
from testkit.checkout import ROOT


def test_a_second_training_on_a_disk_is_refused_with_the_first_ones_process_and_host(tmp_path: Path) -> None:
    run = RunDir(str(tmp_path / "run"))
    with held(run):
        with pytest.raises(UsageError, match=f"process {os.getpid()} on host {socket.gethostname()}"), held(run):
            pass
        with held(RunDir(str(tmp_path / "other"))):
            pass
    with held(run):
        pass


@pytest.mark.parametrize("place", ["file", "file/run", "/proc/run"])
def test_a_run_directory_that_cannot_be_made_is_a_usage_error(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run = RunDir(str(tmp_path / place))  # an absolute place stays as it is
    with pytest.raises(UsageError, match=f"{run.uri} cannot be written: .*take another --run-dir"), held(run):
        pass


@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_a_training_that_died_holds_nothing(end: str, tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom cluster.train.holder import held\nfrom focusvit.runs.run_dir import RunDir\n"
        f"with held(RunDir({str(tmp_path)!r})):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert other.stdout and other.stdout.readline() == "held\n"
    with pytest.raises(UsageError, match=f"process {other.pid} on host"), held(RunDir(str(tmp_path))):
        pass
    getattr(other, end)()
    other.wait()
    other.stdout.close()
    with held(RunDir(str(tmp_path))):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holder, "BEAT_S", 0.05)
    monkeypatch.setattr(holder, "PATIENCE_S", 0.4)


def test_a_heartbeat_in_a_store_refuses_and_one_that_was_left_behind_does_not(quick: None) -> None:
    run = RunDir("memory://runs/held")
    with (
        held(run),
        pytest.raises(UsageError, match=f"process {os.getpid()} on host {socket.gethostname()}"),
        held(run),
    ):
        pass
    assert not storage.exists(run.path("heartbeat.json"))
    storage.put_json(run.path("heartbeat.json"), {"pid": 7, "host": "gone", "since": 0, "id": "x", "beat": 3})
    with held(run):
        assert storage.read_json(run.path("heartbeat.json"))["pid"] == os.getpid()


def test_a_disk_without_locks_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(holder.fcntl, "flock", refuse)
    with held(RunDir(str(tmp_path))):
        assert "takes no locks (" in caplog.text
