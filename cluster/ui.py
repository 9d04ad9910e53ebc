"""`focusvit ui`: the MLflow pages on the store that the runs were written to, opened where a reviewer begins."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from focusvit.runs.landing import landing_page
from focusvit.runs.store import check_reachable, default_tracking_uri
from pipeline.commandline import parse
from pipeline.errors import DataError, UsageError, last_line

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_END_S = 10.0


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


def store_to_serve(config: UiConfig) -> str:
    """The address of the store. Raises UsageError for one that is not there or does not open, and for one that is a
    server already (its own address is its UI)."""
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
    check_reachable(uri)
    return uri


def server_command(config: UiConfig) -> list[str]:
    """The `mlflow server` command. Its store is no argument: `ps` shows those, and the address may hold a password."""
    # One worker and no job runner: 2 processes and half a gigabyte instead of 15 and three.
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--uvicorn-opts", "--log-level warning"]
    command += ["--host", config.host, "--port", str(config.port)]
    if config.allowed_hosts:  # MLflow compares the Host header with its port, so each name is given both ways
        names = [form for name in config.allowed_hosts for form in (name, f"{name}:*")]
        command += ["--allowed-hosts", ",".join([*names, "localhost", "localhost:*", "127.0.0.1", "127.0.0.1:*"])]
    return command


def server_environment(uri: str) -> dict[str, str]:
    return {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": uri,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


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
    uri = store_to_serve(config)
    check_port(config.host, config.port)
    if config.host not in LOOPBACK:
        sys.stderr.write(f"warning: {config.host} is not loopback: whoever reaches it can read and delete runs\n")
    host = f"[{config.host}]" if ":" in config.host else config.host
    sys.stdout.write(f"MLflow UI of {uri}\n")
    try:
        _serve(config, uri, f"http://{host}:{config.port}")
    except KeyboardInterrupt:  # the one way to end it
        return 0
    return 1


def _serve(config: UiConfig, uri: str, url: str) -> None:
    """Start the server, say where to begin, and wait. Raises DataError when it ends by itself."""
    with _server(server_command(config), server_environment(uri)) as (process, log):
        experiments = _experiments(url, process)
        if experiments is not None:
            pages = [(one["name"], landing_page(url, one)) for one in experiments]
            width = max(len(name) for name, _ in pages)
            sys.stdout.write(
                "open (Ctrl-C ends it)\n" + "".join(f"  {name:<{width}}  {page}\n" for name, page in pages)
            )
            sys.stdout.flush()
            process.wait()
        log.seek(0)
        said = last_line(log.read().decode(errors="replace").strip() or "nothing")
        raise DataError(f"the MLflow server ended by itself (exit code {process.returncode}); it said last: {said}")


def _experiments(url: str, process: "subprocess.Popen[bytes]") -> list[dict[str, Any]] | None:
    """Experiments of the served store, the newest first, as soon as it answers; None when the server ended before."""
    query = {"max_results": 20, "order_by": ["last_update_time DESC"]}
    request = urllib.request.Request(f"{url}/api/2.0/mlflow/experiments/search", json.dumps(query).encode())
    request.add_header("Content-Type", "application/json")
    local = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy knows nothing of this machine
    while process.poll() is None:
        try:
            with local.open(request, timeout=5) as answer:
                return json.load(answer)["experiments"]
        except (OSError, ValueError):
            time.sleep(0.3)
    return None


@contextmanager
def _server(command: list[str], environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """The server and its log. It has a process group of its own, so that Ctrl-C reaches only us; its access lines and
    what uvicorn says of being ended go to a file that is gone with it."""

    def end(*_: Any) -> None:
        raise KeyboardInterrupt

    heard = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]  # nohup ignores
    before = {number: signal.signal(number, end) for number in heard}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield process, log
        finally:
            _end(process)
            for number, handler in before.items():
                signal.signal(number, handler)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the server and its worker: the group that we started, nothing else."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
            break
