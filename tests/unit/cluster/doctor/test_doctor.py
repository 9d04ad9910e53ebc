"""Doctor: each thing that can be wrong is found, named with its value, and comes with a fix."""

import json
import signal
import sqlite3
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from cluster.doctor import machine as doctor_machine
from cluster.doctor.finding import as_json, as_text, broken, num_broken, ok, warning
from cluster.doctor.machine import check_fast_slic
from cluster.doctor.services import check_path, check_sqlite, check_tracking
from pipeline.secrets import masked
from testkit.web import scripted_server


def test_a_finding_that_is_wrong_must_carry_its_fix():
    with pytest.raises(ValueError, match="names no fix"):
        broken("disk", "full", "")


def test_text_and_json_say_the_same():
    findings = [ok("a", "fine"), warning("b", "odd", "turn it"), broken("c", "bad", "mend it")]
    text, data = as_text(findings), json.loads(as_json(findings))
    assert data["broken"] == num_broken(findings) == 1
    assert [row["check"] for row in data["findings"]] == ["a", "b", "c"]
    assert "fix: mend it" in text and text.endswith("1 ok, 1 warnings, 1 broken\n")


def fake_python(folder: Path, body: str) -> str:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_fast_slic_of_this_environment_works():
    assert check_fast_slic().level in ("ok", "warning")


def test_fast_slic_for_another_cpu_is_named_although_it_ends_its_process(tmp_path):
    python = fake_python(tmp_path, f"kill -{signal.SIGILL.value} $$")
    found = check_fast_slic(python, flags=frozenset({"sse4_2"}))
    assert found.level == "broken" and "SIGILL" in found.found and "portable_fast_slic.sh" in found.fix


def test_fast_slic_missing_portable_and_absent_python(tmp_path):
    absent = check_fast_slic(
        fake_python(tmp_path, "echo \"ModuleNotFoundError: No module named 'cfast_slic'\" >&2; exit 1")
    )
    assert absent.level == "broken" and "make test" in absent.fix
    portable = fake_python(tmp_path, """echo '{"archs": ["standard"], "regions": 9}'""")
    assert check_fast_slic(portable, flags=frozenset({"avx2"})).level == "warning"
    assert check_fast_slic(portable, flags=frozenset()).level == "ok"
    assert check_fast_slic(str(tmp_path / "nothing")).level == "broken"


def test_machine_checks_name_value_and_fix(tmp_path, monkeypatch):
    assert doctor_machine.check_python()[0].level == "ok"
    assert doctor_machine.check_packages()[0].level == "ok"
    assert doctor_machine.check_ray_extras()[0].level == "ok"
    small = doctor_machine.check_shared_memory(tmp_path, minimum_bytes=2**60)[0]
    assert small.level == "warning" and "--shm-size" in small.fix
    full = doctor_machine.check_disk([tmp_path], minimum_bytes=2**60)[0]
    assert full.level == "broken" and str(tmp_path) in full.found
    monkeypatch.setattr(doctor_machine.shutil, "which", lambda name: None)
    assert "apt install g++" in doctor_machine.check_compiler()[0].fix


def test_a_ray_without_its_extras_is_named(monkeypatch):
    monkeypatch.setattr(doctor_machine, "_installed", lambda name: name != "opencensus")
    found = doctor_machine.check_ray_extras()[0]
    assert found.level == "broken" and "opencensus" in found.found and "ray[default,train]" in found.fix


def test_a_busy_port_is_a_warning():
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    found = doctor_machine.check_ports({"MLflow": server.server_port})[0]
    server.server_close()
    assert found.level == "warning" and str(server.server_port) in found.found
    assert doctor_machine.check_ports({"MLflow": server.server_port})[0].level == "ok"


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "./mlruns", "/tmp/mlruns"])
def test_file_stores_are_refused_with_the_way_out(uri):
    found = check_tracking(uri)[0]
    assert found.level == "broken" and "migrate-filestore" in found.fix


def test_sqlite_stores(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = check_sqlite("sqlite:///mlflow.db")[0]
    assert relative.level == "broken" and f"sqlite:///{tmp_path}/mlflow.db" in relative.fix
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert check_sqlite(uri)[0].found.endswith("made by the first run")
    missing = check_sqlite(f"sqlite:///{tmp_path}/none/mlflow.db")[0]
    assert missing.level == "broken" and "missing or read-only" in missing.found and missing.fix == "Make it."
    assert "mlflow server" in check_sqlite(uri, num_nodes=2)[0].fix
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("CREATE TABLE experiments (experiment_id INTEGER)")
    assert check_sqlite(uri)[0].found.endswith("is writable")
    (tmp_path / "mlflow.db").write_bytes(b"not a database at all" * 100)
    assert check_sqlite(uri)[0].level == "broken"


def test_a_locked_sqlite_store_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("focusvit.runs.store._TIMEOUT_S", 0.1)
    holder = sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    found = check_sqlite(f"sqlite:///{tmp_path}/mlflow.db")[0]
    holder.close()
    assert found.level == "broken" and "locked" in found.found


@pytest.fixture
def server():
    with scripted_server() as web:
        yield web


READ, WRITE = ("GET", "/api/2.0/mlflow/experiments/search"), ("POST", "/api/2.0/mlflow/experiments/set-experiment-tag")


def test_mlflow_servers_and_their_refusals(server):
    url, answers = server.url, server.answers
    assert "is no MLflow server" in check_tracking(url)[0].found
    answers[("GET", "/health")] = (200, "OK")
    answers[READ] = (403, "Invalid Host header - possible DNS rebinding attack detected")
    assert '--allowed-hosts "127.0.0.1,127.0.0.1:*"' in check_tracking(url)[0].fix
    answers[READ] = (401, "You are not authenticated.")
    assert "MLFLOW_TRACKING_PASSWORD" in check_tracking(url)[0].fix
    answers[READ] = (500, "database is out of date")
    assert "db upgrade" in check_tracking(url)[0].fix
    answers[READ] = (200, "{}")
    answers[WRITE] = (500, "disk is full")
    assert "disk is full" in check_tracking(url)[0].found
    answers[WRITE] = (403, "Permission denied")
    assert check_tracking(url)[0].level == "ok"
    answers[WRITE] = (200, "{}")
    assert check_tracking(url)[0].found.endswith("reachable and writable")


def test_a_dead_mlflow_server_is_named():
    found = check_tracking("http://user:secret@127.0.0.1:9")[0]
    assert found.level == "broken" and "nothing answers" in found.found and "secret" not in found.found


def test_passwords_are_never_shown():
    assert masked("postgresql://me:secret@db:5432/x") == "postgresql://me:***@db:5432/x"
    assert "secret" not in check_tracking("postgresql://me:secret@db/x")[0].found


def test_paths_that_a_worker_would_misread(tmp_path):
    assert check_path("", "data/shards").level == "broken"
    assert str(Path("data/shards").absolute()) in check_path("", "data/shards").fix
    assert check_path("", "~/shards").level == "broken"
    assert check_path("", f"file://{tmp_path}").level == "warning"
    assert check_path("", str(tmp_path)).level == "ok"
    assert check_path("", str(tmp_path / "nothing")).level == "warning"
    assert check_path("", "memory://bucket/shards").level == "ok"


def test_the_command_prints_json_and_its_exit_code_counts_what_is_broken(capsys, monkeypatch, tmp_path):
    from cluster.doctor import doctor

    monkeypatch.setattr(doctor, "machine_findings", lambda places, ports: [ok("python", sys.version)])
    monkeypatch.delenv("FOCUSVIT_DATA", raising=False)
    store = f"sqlite:///{tmp_path}/mlflow.db"
    assert doctor.main(["--json", "--tracking-uri", store]) == 0
    assert json.loads(capsys.readouterr().out)["broken"] == 0
    assert doctor.main(["--tracking-uri", store, "--num-nodes", "2", "--paths", "data"]) == 1
    assert "2 broken" in capsys.readouterr().out
