"""`focusvit ui`: the MLflow pages on the store that the runs were written to."""

import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from focusvit.runs.tracker import default_tracking_uri
from pipeline.commandline import parse
from pipeline.errors import UsageError
from pipeline.io.storage import without_password

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class UiConfig:
    """Serve the MLflow UI of a tracking store."""

    tracking_uri: str | None = None
    """Store to show; default: MLFLOW_TRACKING_URI, else ./mlflow.db."""
    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback is open to everyone who can reach it."""
    port: int = 5000
    """Port to listen on."""
    allowed_hosts: tuple[str, ...] = ()
    """Names under which browsers and runs reach the server, when they are not loopback or a private address."""

    def __post_init__(self) -> None:
        if not 0 < self.port < 65536:
            raise ValueError(f"--port is {self.port}: use 1 to 65535.")


def server_command(config: UiConfig) -> list[str]:
    """The `mlflow server` command for a local store. Raises UsageError for a store that is not there yet, and for
    one that is a server already (its own address is its UI)."""
    uri = default_tracking_uri(config.tracking_uri)
    scheme = urlsplit(uri).scheme
    if scheme in ("http", "https"):
        raise UsageError(
            f"the tracking store {without_password(uri)} is a server with its own UI: open that address in a browser."
        )
    if scheme == "sqlite":
        database = Path(uri.removeprefix("sqlite:///"))
        if not database.is_file():
            raise UsageError(
                f"no tracking store at {database}. Run this in the folder where the runs were started, "
                "or name the store with --tracking-uri sqlite:////path/to/mlflow.db."
            )
    # One worker and no job runner: 2 processes and half a gigabyte instead of 15 and three.
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--workers", "1"]
    command += ["--host", config.host, "--port", str(config.port)]
    if config.allowed_hosts:  # MLflow compares the Host header with its port, so each name is given both ways
        names = [form for name in config.allowed_hosts for form in (name, f"{name}:*")]
        command += ["--allowed-hosts", ",".join([*names, "localhost", "localhost:*", "127.0.0.1", "127.0.0.1:*"])]
    return command


def check_port(host: str, port: int) -> None:
    """Raises UsageError when the server could not listen: its own message would come after seconds, in a traceback."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as error:
            raise UsageError(
                f"cannot listen on {host}:{port} ({(error.strerror or str(error)).lower()}). Another server may be "
                f"running there already; else choose another port: focusvit ui --port {port + 1}."
            ) from None


def main(argv: list[str]) -> int:
    config = parse(UiConfig, argv, prog="focusvit ui")
    command = server_command(config)
    check_port(config.host, config.port)
    if config.host not in LOOPBACK:
        sys.stderr.write(f"warning: {config.host} is not loopback: whoever reaches it can read and delete runs\n")
    store = without_password(command[command.index("--backend-store-uri") + 1])
    host = f"[{config.host}]" if ":" in config.host else config.host
    sys.stdout.write(f"MLflow UI of {store}\nopen http://{host}:{config.port} (Ctrl-C ends it)\n")
    sys.stdout.flush()
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    process = subprocess.Popen(command, env=environment)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()
        return 0
