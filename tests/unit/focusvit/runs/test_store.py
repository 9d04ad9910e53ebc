"""The tracking store: first runs at once make one whole database; whatever a store answers is one paragraph."""

import base64
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from focusvit.runs import store as store_module
from focusvit.runs.store import check_reachable, default_tracking_uri, open_client, signed_in
from focusvit.runs.tracker import Tracker
from pipeline.errors import UsageError
from testkit.checkout import ROOT

FIRST_RUNS = """
import multiprocessing, sys
import mlflow
from focusvit.runs.tracker import Tracker

def run(name):
    ready.wait()
    with Tracker.open(store, "focusvit", name) as tracker:
        tracker.metrics([("val/top1", 1, 0.5, 1000)])

store, *names = sys.argv[1:]
context = multiprocessing.get_context("fork")  # MLflow is loaded once
ready = context.Barrier(len(names))
children = [context.Process(target=run, args=(name,)) for name in names]
for child in children:
    child.start()
for child in children:
    child.join()
sys.exit(any(child.exitcode for child in children))
"""


def test_first_runs_at_once_make_one_whole_database(tmp_path: Path) -> None:
    names, database = ["a", "b"], tmp_path / "mlflow.db"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-c", FIRST_RUNS, f"sqlite:///{database}", *names]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    with sqlite3.connect(database) as found:
        assert sorted(found.execute("select name, status from runs")) == [(name, "FINISHED") for name in names]
        assert found.execute("select count(*) from experiments where name = 'focusvit'").fetchone() == (1,)
    assert not list(tmp_path.glob(".mlflow.db*"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A database as MLflow makes it; made once, in place of the empty file that a killed MLflow leaves."""
    path = tmp_path_factory.mktemp("whole") / "mlflow.db"
    path.touch()
    assert open_client(f"sqlite:///{path}").search_experiments()[0].name == "Default"
    return path


def test_a_first_run_that_dies_while_it_makes_the_database_leaves_none(tmp_path, monkeypatch, own_tables) -> None:
    def die(uri: str, root: str) -> None:
        Path(uri.removeprefix("sqlite:///")).write_bytes(b"half of the tables")
        raise MemoryError

    monkeypatch.setattr("mlflow.store.tracking.sqlalchemy_store.SqlAlchemyStore", die)
    with pytest.raises(MemoryError):
        open_client(f"sqlite:///{tmp_path}/mlflow.db")
    assert list(tmp_path.iterdir()) == []


def database(folder: Path, script: str) -> str:
    with sqlite3.connect(folder / "mlflow.db") as made:
        made.executescript(script)
    return f"sqlite:///{folder}/mlflow.db"


def refusal(uri: str) -> str:
    with pytest.raises(UsageError) as refused:
        Tracker.open(uri, "e", "r")
    text = str(refused.value)
    assert "\n" not in text and text.startswith("The tracking store") and "--tracking-uri" in text
    return text


def test_a_database_that_another_program_holds(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(store_module, "_TIMEOUT_S", 0.1)
    uri = database(tmp_path, "create table t (x)")
    holder = sqlite3.connect(tmp_path / "mlflow.db")
    holder.execute("begin exclusive")
    assert "database is locked" in refusal(uri) and "Another program holds" in refusal(uri)
    holder.close()


def test_a_file_that_is_no_database_and_a_folder(tmp_path) -> None:
    (tmp_path / "notes.db").write_text("these are notes, " * 100)
    assert "not a database" in refusal(f"sqlite:///{tmp_path}/notes.db")
    (tmp_path / "folder.db").mkdir()
    assert "unable to open" in refusal(f"sqlite:///{tmp_path}/folder.db")


def test_a_database_of_another_mlflow(tmp_path, whole) -> None:
    shutil.copy(whole, tmp_path)
    uri = database(tmp_path, "update alembic_version set version_num = 'ancient'")
    assert "out-of-date database schema" in refusal(uri) and "mlflow db upgrade" in refusal(uri)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("postgresql://me:hunter2@127.0.0.1:1/m", "psycopg"),  # the driver is missing
        ("mysql+pymysql://me:hunter2@127.0.0.1:1/m", "pymysql"),
        ("nonsense://me:hunter2@h/m", "nonsense"),
        ("postgresql://me:hunter2@h:port/m", "port"),
        ("s3://bucket/mlflow", "s3"),
    ],
)
def test_stores_that_cannot_be_opened(uri: str, words: str) -> None:
    assert words in refusal(uri) and "hunter2" not in refusal(uri)


def test_a_database_server_that_is_not_there_is_given_up_at_once(monkeypatch) -> None:
    import sqlalchemy

    monkeypatch.setattr(sqlalchemy, "create_engine", lambda address: None)  # as if its driver were there
    assert "Connection refused" in refusal("postgresql://me:hunter2@127.0.0.1:1/m")


def test_a_store_that_breaks_in_the_middle_of_a_run_is_a_paragraph(tmp_path, whole) -> None:
    uri = f"sqlite:///{shutil.copy(whole, tmp_path)}"
    with Tracker.open(uri, "e", "r") as tracker:
        database(tmp_path, "drop table params")
        with pytest.raises(UsageError, match=r"refuses a part of the run.*no such table: params"):
            tracker.params({"a": 1})


def test_user_and_password_of_an_address_become_a_header(monkeypatch) -> None:
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "of before")
    seen: list[tuple[str, str]] = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path.split("?")[0], self.headers.get("Authorization", "")))
            self.send_response(200 if self.path == "/health" else 403)
            self.end_headers()
            self.wfile.write(b'{"error_code": "PERMISSION_DENIED", "message": "not yours"}')

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        uri = default_tracking_uri(f"http://me:hunter%402@127.0.0.1:{server.server_port}")
        assert uri == f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(UsageError, match="not yours"):
            Tracker.open(uri, "e", "r")
        server.shutdown()
    header = "Basic " + base64.b64encode(b"me:hunter@2").decode()
    assert {path for path, _ in seen} >= {"/health", "/api/2.0/mlflow/experiments/get-by-name"}
    assert {sent for _, sent in seen} == {header}


@pytest.mark.parametrize("uri", ["http://me:p/w@host:5000", "http://:5000", "http://[::bad", "http://"])
def test_an_address_that_is_none_is_refused(uri: str) -> None:
    with pytest.raises(UsageError, match="no address of a server"):
        signed_in(uri)


def test_a_file_that_may_not_be_written(tmp_path, monkeypatch) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setattr(store_module, "_MIN_FREE_BYTES", 2**60)
    with pytest.raises(UsageError, match="cannot grow"):
        check_reachable(uri)
