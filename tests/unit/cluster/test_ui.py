"""The UI verb: the right store, links that open where a reviewer begins, and a plain word for what cannot be served."""

import os
import signal
import socket
import sys
import threading

import psutil
import pytest

from cluster import ui
from focusvit.cli import main
from focusvit.runs.landing import experiment_tags
from pipeline.errors import UsageError
from testkit.command_lines import check_mlflow

# Stands for `mlflow server`: lines of access on both streams, a traceback when it is interrupted.
SERVER = """
import http.server, json, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        print("access line", flush=True)
        body = json.dumps({"experiments": json.loads(sys.argv[2])}).encode()
        self.send_response(200); self.end_headers(); self.wfile.write(body)

http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
EXPERIMENTS = (
    '[{"name": "focusvit", "experiment_id": "7", "tags": [{"key": "mlflow.sharedViewState.focusvit", "value": "{}"}]},'
    ' {"name": "Default", "experiment_id": "0"}]'
)


@pytest.fixture
def store(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"")
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.filterwarnings("ignore")
def test_the_command_is_one_that_mlflow_understands(store):
    config = ui.UiConfig(tracking_uri=store, port=5001, allowed_hosts=("runs.example",))
    assert ui.store_to_serve(config) == store
    command = ui.server_command(config)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert "runs.example,runs.example:*,localhost" in command[command.index("--allowed-hosts") + 1]
    check_mlflow(command[2:])


@pytest.mark.filterwarnings("ignore")
def test_mlflow_takes_the_store_from_the_variable_that_we_set(store):
    """A database address with its password must not be an argument: `ps` shows those to everyone."""
    from mlflow.cli import server

    (option,) = (one for one in server.params if one.name == "backend_store_uri")
    uri = "postgresql://me:hunter2@db/mlflow"
    assert ui.server_environment(uri)[option.envvar] == uri
    assert "hunter2" not in " ".join(ui.server_command(ui.UiConfig(tracking_uri=uri)))


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("http://me:hunter2@mlflow:5000", "open that address"),
        ("sqlite:////nowhere/mlflow.db", "no tracking store"),
        ("postgresql://me:hunter2@127.0.0.1:1/m", "cannot be used"),
    ],
)
def test_stores_that_cannot_be_served(uri, words, monkeypatch):
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "of before")
    with pytest.raises(UsageError, match=words) as error:
        ui.store_to_serve(ui.UiConfig(tracking_uri=uri))
    assert "hunter2" not in str(error.value)


def test_a_busy_port_is_said_before_the_server_starts(store, monkeypatch):
    monkeypatch.setattr(ui.subprocess, "Popen", lambda *args, **options: pytest.fail("must not start"))
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1:{port} .address already in use.*--port"):
            ui.main(["--tracking-uri", store, "--port", str(port)])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_pages_are_named_and_the_end_is_quiet(store, port, number, monkeypatch, capfd):
    monkeypatch.setattr(ui, "server_command", lambda config: [sys.executable, "-c", SERVER, str(port), EXPERIMENTS])
    landing_page, served = ui.landing_page, []

    def end_soon(url, experiment):
        served[:] = set(psutil.Process().children()) - others
        threading.Timer(0.1, os.kill, (os.getpid(), number)).start()
        return landing_page(url, experiment)

    monkeypatch.setattr(ui, "landing_page", end_soon)
    # A run of the tests in the background inherits ignored signals; what is tested is a foreground.
    before = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    inherited, others = signal.signal(number, before), set(psutil.Process().children())
    try:
        assert ui.main(["--tracking-uri", store, "--port", str(port)]) == 0
        assert signal.getsignal(number) is before
    finally:
        signal.signal(number, inherited)
    said = capfd.readouterr()
    assert said.err == "" and "access line" not in said.out
    page = f"http://127.0.0.1:{port}/#/experiments"
    assert f"focusvit  {page}/7/runs?workflowType=machine_learning&viewStateShareKey=focusvit\n" in said.out
    assert f"Default   {page}/0/runs?workflowType=machine_learning\n" in said.out  # it has no view of ours
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in served)


def test_a_server_that_ends_by_itself_is_one_sentence(store, port, monkeypatch, capfd):
    code = "print('Traceback ...'); raise SystemExit('the disk is full')"
    monkeypatch.setattr(ui, "server_command", lambda config: [sys.executable, "-c", code])
    assert main(["ui", "--tracking-uri", store, "--port", str(port)]) == 1
    assert "ended by itself (exit code 1); it said last: the disk is full\n" in capfd.readouterr().err


def test_an_open_address_is_warned_of(store, port, monkeypatch, capfd):
    monkeypatch.setattr(ui, "server_command", lambda config: ["false"])
    assert main(["ui", "--tracking-uri", store, "--host", "0.0.0.0", "--port", str(port)]) == 1
    assert "whoever reaches it" in capfd.readouterr().err
    assert main(["ui", "--tracking-uri", store, "--port", str(port)]) == 1
    assert "whoever reaches it" not in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["pretrain", "finetune", "transfer"])
def test_the_tags_of_an_experiment_fit_into_mlflow(kind):
    tags = experiment_tags(kind)
    assert all(len(value) <= 5000 for value in tags.values())
    assert ("Suites" in tags["mlflow.note.content"]) == (kind == "transfer")
