"""`focusvit ui`: the MLflow pages on the store that the runs were written to."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from focusvit.tracking import default_tracking_uri
from pipeline.commandline import parse
from pipeline.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class UiConfig:
    """Serve the MLflow UI of a tracking store."""

    tracking_uri: str | None = None
    """Store to show; default: MLFLOW_TRACKING_URI, else ./mlflow.db."""
    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback is open to everyone who can reach it."""
    port: int = 5000
    """Port to listen on."""


def server_command(config: UiConfig) -> list[str]:
    """The `mlflow server` command for a local store. Raises UsageError for a store that is not there yet, and for
    one that is a server already (its own address is its UI)."""
    uri = default_tracking_uri(config.tracking_uri)
    scheme = urlsplit(uri).scheme
    if scheme in ("http", "https"):
        raise UsageError(f"the tracking store {uri} is a server with its own UI: open that address in a browser.")
    if scheme == "sqlite":
        database = Path(uri.removeprefix("sqlite:///"))
        if not database.is_file():
            raise UsageError(
                f"no tracking store at {database}. Run this in the folder where the runs were started, "
                "or name the store with --tracking-uri sqlite:////path/to/mlflow.db."
            )
    # One worker and no job runner: 2 processes and half a gigabyte instead of 15 and three.
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--workers", "1"]
    return [*command, "--host", config.host, "--port", str(config.port)]


def main(argv: list[str]) -> int:
    config = parse(UiConfig, argv, prog="focusvit ui")
    command = server_command(config)
    sys.stdout.write(f"MLflow UI of {command[5]}\nopen http://{config.host}:{config.port} (Ctrl-C ends it)\n")
    sys.stdout.flush()
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    process = subprocess.Popen(command, env=environment)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()
        return 0
