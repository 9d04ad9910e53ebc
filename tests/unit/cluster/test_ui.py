"""The UI verb: the right store, the right address, and a plain word for a store or a port that cannot be used."""

import socket
import types

import pytest

from cluster import ui
from pipeline.errors import UsageError
from testkit.command_lines import check_mlflow


@pytest.fixture
def store(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"")
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.mark.filterwarnings("ignore")
def test_the_command_is_one_that_mlflow_understands(store):
    command = ui.server_command(ui.UiConfig(tracking_uri=store, port=5001, allowed_hosts=("runs.example",)))
    assert command[command.index("--backend-store-uri") + 1] == store
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert "runs.example,runs.example:*,localhost" in command[command.index("--allowed-hosts") + 1]
    check_mlflow(command[2:])


@pytest.mark.parametrize(
    ("uri", "words"),
    [("http://mlflow:5000", "open that address"), ("sqlite:////nowhere/mlflow.db", "no tracking store")],
)
def test_stores_that_cannot_be_served(uri, words):
    with pytest.raises(UsageError, match=words):
        ui.server_command(ui.UiConfig(tracking_uri=uri))


def test_a_busy_port_is_said_before_the_server_starts(store, monkeypatch):
    monkeypatch.setattr(ui.subprocess, "Popen", lambda *args, **options: pytest.fail("must not start"))
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1:{port}"):
            ui.main(["--tracking-uri", store, "--port", str(port)])


def test_an_open_address_is_warned_of(store, monkeypatch, capsys):
    class Server:
        def __init__(self, *args, **options):
            pass

        def wait(self):
            return 0

    monkeypatch.setattr(ui.subprocess, "Popen", Server)
    monkeypatch.setattr(ui, "check_port", lambda host, port: None)
    assert ui.main(["--tracking-uri", store, "--host", "0.0.0.0"]) == 0
    assert "whoever reaches it" in capsys.readouterr().err
    assert ui.main(["--tracking-uri", store]) == 0
    shown = capsys.readouterr()
    assert shown.err == "" and "open http://127.0.0.1:5000" in shown.out


def test_what_is_said_holds_no_password_and_a_link_that_opens(monkeypatch, capsys):
    monkeypatch.setattr(ui.subprocess, "Popen", lambda *args, **options: types.SimpleNamespace(wait=lambda: 0))
    monkeypatch.setattr(ui, "check_port", lambda host, port: None)
    assert ui.main(["--tracking-uri", "postgresql://me:hunter2@db/mlflow", "--host", "::1"]) == 0
    said = capsys.readouterr().out
    assert "postgresql://me:***@db/mlflow" in said and "http://[::1]:5000" in said and "hunter2" not in said
    with pytest.raises(UsageError) as error:
        ui.server_command(ui.UiConfig(tracking_uri="http://me:hunter2@mlflow:5000"))
    assert "hunter2" not in str(error.value)
