"""The run in MLflow: every point once, whatever server and driver go through; wrong places refused in words."""

import sqlite3
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import psutil
import pytest

from focusvit.runs.metrics_log import MetricsLog
from focusvit.runs.run_dir import RunDir
from focusvit.runs.shipper import Shipper
from focusvit.runs.store import check_reachable, default_tracking_uri
from focusvit.runs.tracker import Point, Tracker
from pipeline.errors import UsageError


class FakeServer:
    """Keeps points as a server would; fails while `down`; `lose_answer` stores a batch and then fails."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.down = False
        self.lose_answer = False

    def places(self) -> set[tuple[str, int]]:
        if self.down:
            raise ConnectionError("refused")
        return {p[:2] for p in self.points}

    def metrics(self, points: list[Point]) -> None:
        if self.down:
            raise ConnectionError("refused")
        self.points += points
        if self.lose_answer:
            self.lose_answer = False
            raise TimeoutError("no answer")


def write(run: RunDir, *samples: int) -> None:
    log = MetricsLog(run)
    for count in samples:
        log.append(count, {"train/loss": 1 / count, "train/top1": 0.1})


def keys(server: FakeServer) -> list[tuple[str, int]]:
    return [(p[0], p[1]) for p in server.points]


def test_an_outage_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    run, server = RunDir(str(tmp_path)), FakeServer()
    seen: list[int] = []
    shipper = Shipper(str(tmp_path), server, on_point=lambda p: seen.append(p["samples"]), every_s=0.01).start()  # type: ignore[arg-type]
    write(run, 10, 20)
    time.sleep(0.2)
    server.down = True
    write(run, 30, 40)
    time.sleep(0.2)
    assert seen == [10, 20, 30, 40]  # the progress bar does not wait for a server
    server.down, server.lose_answer = False, True
    write(run, 50)
    assert shipper.finish() == 0
    assert sorted(set(keys(server))) == sorted(keys(server))
    assert len(keys(server)) == 10


def test_sections_of_mlflow_sort_scores_before_what_the_machine_did(tmp_path: Path) -> None:
    run, server = RunDir(str(tmp_path)), FakeServer()
    MetricsLog(run).append(10, {"perf/img_per_s": 5.0, "train/loss": 1.0, "val/top1": 0.5})
    for _ in range(2):
        assert Shipper(str(tmp_path), server, every_s=9).start().finish() == 0  # type: ignore[arg-type]
    assert sorted(name for name, _ in keys(server)) == ["train/loss", "val/top1", "work/img_per_s"]


def test_a_new_driver_sends_only_what_the_server_lacks(tmp_path: Path) -> None:
    run, server = RunDir(str(tmp_path)), FakeServer()
    write(run, 10, 20)
    assert Shipper(str(tmp_path), server, every_s=9).start().finish() == 0  # type: ignore[arg-type]
    write(run, 10, 20, 30)  # a worker that replays steps after a kill
    assert Shipper(str(tmp_path), server, every_s=9).start().finish() == 0  # type: ignore[arg-type]
    assert keys(server) == [(n, s) for s in (10, 20, 30) for n in ("train/loss", "train/top1")]


def test_points_between_those_of_the_server_are_sent_once(tmp_path: Path) -> None:
    """A resume with smaller log_every_steps runs steps again and writes a point where none was."""
    run, server = RunDir(str(tmp_path)), FakeServer()
    write(run, 10, 20)
    assert Shipper(str(tmp_path), server, every_s=9).start().finish() == 0  # type: ignore[arg-type]
    write(run, 15, 20, 25)
    for _ in range(2):
        assert Shipper(str(tmp_path), server, every_s=9).start().finish() == 0  # type: ignore[arg-type]
    assert keys(server) == [(n, s) for s in (10, 20, 15, 25) for n in ("train/loss", "train/top1")]


def test_what_cannot_be_sent_is_counted_and_stays(tmp_path: Path) -> None:
    server = FakeServer()
    server.down = True
    write(RunDir(str(tmp_path)), 10)
    assert Shipper(str(tmp_path), server, every_s=9).start().finish(timeout_s=0.1) == 2  # type: ignore[arg-type]


def test_a_progress_bar_that_breaks_stops_no_points(tmp_path: Path) -> None:
    run, server = RunDir(str(tmp_path)), FakeServer()

    def broken(point: dict) -> None:
        raise BrokenPipeError("the terminal is gone")

    shipper = Shipper(str(tmp_path), server, on_point=broken, every_s=0.01).start()  # type: ignore[arg-type]
    write(run, 10)
    time.sleep(0.2)
    write(run, 20)
    assert shipper.finish(5.0) == 0
    assert sorted(keys(server)) == [(name, n) for name in ("train/loss", "train/top1") for n in (10, 20)]


def test_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert default_tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert default_tracking_uri() == "http://server:5000"
    assert default_tracking_uri("sqlite:///a.db") == f"sqlite:///{tmp_path}/a.db"
    for folder in ("./mlruns", "file:/tmp/mlruns"):
        with pytest.raises(UsageError, match="no longer writes runs to folders"):
            default_tracking_uri(folder)


def test_a_dead_server_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"http://127\.0\.0\.1:9 does not answer"):
        check_reachable("http://127.0.0.1:9")
    with pytest.raises(UsageError, match="cannot be written"):
        check_reachable("sqlite:////no/such/folder/mlflow.db")


@pytest.mark.parametrize("run_id", [None, "0" * 32])
def test_a_server_that_refuses_is_a_usage_error(run_id: str | None) -> None:
    """It is there and healthy, and lets this user do nothing, or only look."""

    class Refusing(BaseHTTPRequestHandler):
        def answer(self) -> None:
            healthy = self.path == "/health"
            body = b'{"error_code": "PERMISSION_DENIED", "message": "not yours"}'
            if self.path.startswith("/api/2.0/mlflow/experiments/get-by-name"):
                body = b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such experiment"}'
            self.send_response(200 if healthy else 403)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(UsageError, match=r"not yours.*--tracking-uri"):
            Tracker.open(f"http://127.0.0.1:{server.server_port}", "e", "r", run_id=run_id)
        server.shutdown()


def test_no_message_and_no_command_line_shows_a_password(store: str) -> None:
    with pytest.raises(UsageError, match=r"The tracking server http://me:\*\*\*@localhost:1 does not answer"):
        check_reachable("http://me:secret@localhost:1")
    with Tracker.open(store, "e", "watched") as tracker:
        tracker.uri = store + "?password=secret"
        tracker.watch()
        assert tracker._watchdog and "secret" not in " ".join(psutil.Process(tracker._watchdog.pid).cmdline())


def test_a_watchdog_that_is_slow_to_leave_fails_no_run(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("focusvit.runs.tracker._WATCHDOG_S", 0.1)
    with Tracker.open(store, "e", "slow watchdog") as tracker:
        tracker._watchdog = watchdog = subprocess.Popen(["sleep", "60"], stdin=subprocess.PIPE)
        tracker.finish()
    assert status(store, tracker.run_id) == "FINISHED"
    watchdog.kill()
    watchdog.wait()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('a store')}/mlflow.db"


def status(store: str, run_id: str) -> str:
    with sqlite3.connect(store.removeprefix("sqlite:///")) as database:
        return database.execute("select status from runs where run_uuid = ?", [run_id]).fetchone()[0]


def test_a_real_store_takes_everything(store: str, tmp_path: Path) -> None:
    with Tracker.open(store, "tests", "first", tags={"kind": "test"}) as tracker:
        tracker.params({f"key.{i}": i for i in range(120)})
        tracker.params({"key.0": "other", "new": 1})  # a resumed run keeps its params
        tracker.metrics([("train/loss", s, 1 / s, 1000 + s) for s in range(1, 1201)])
        tracker.image(np.zeros((8, 8, 3), np.uint8), "superpixels/overlay")
        tracker.table({"class": ["a"], "recall": [0.5]}, "scores/per_class")
        tracker.dataset("tiny", "f" * 64, "/data")
        assert tracker.places() == {("train/loss", s) for s in range(1, 1201)}
        experiment = tracker.client.get_experiment_by_name("tests")
    assert "how the machine worked" in experiment.tags["mlflow.note.content"]
    assert "val/top1" in experiment.tags["mlflow.sharedViewState.focusvit"]
    assert status(store, tracker.run_id) == "FINISHED"
    found = tracker._client.get_run(tracker.run_id)
    assert found.data.params["key.0"] == "0" and found.data.params["new"] == "1"
    assert found.inputs.dataset_inputs[0].dataset.digest == "f" * 36
    artifacts = Path(found.info.artifact_uri.removeprefix("file://").replace("%20", " "))
    assert (artifacts / "superpixels/overlay.png").is_file()


@pytest.mark.parametrize(
    ("error", "expected"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")]
)
def test_no_run_stays_running(store: str, error: type[BaseException], expected: str) -> None:
    with pytest.raises(error), Tracker.open(store, "tests", "ends badly") as tracker:
        raise error
    assert status(store, tracker.run_id) == expected


def test_going_on_sets_it_running_again(store: str) -> None:
    with Tracker.open(store, "tests", "again") as first:
        pass
    with Tracker.open(store, "tests", "again", run_id=first.run_id) as second:
        assert second.run_id == first.run_id
        assert status(store, first.run_id) == "RUNNING"
    with pytest.raises(UsageError, match="has no run"):
        Tracker.open(store, "tests", "again", run_id="0" * 32)


def test_a_driver_that_dies_without_a_word_is_marked(store: str) -> None:
    code = (
        "import os, signal\nfrom focusvit.runs.tracker import Tracker\n"
        f"tracker = Tracker.open({store!r}, 'tests', 'killed')\ntracker.watch()\nprint(tracker.run_id, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    run_id = done.stdout.strip()
    deadline = time.monotonic() + 60
    while status(store, run_id) == "RUNNING" and time.monotonic() < deadline:
        time.sleep(0.2)
    assert status(store, run_id) == "KILLED"
