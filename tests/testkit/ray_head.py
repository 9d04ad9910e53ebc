"""A Ray head with its dashboard, and further raylets, as processes of a test: started, used, ended, nothing left."""

import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import requests

BIN = Path(sys.executable).parent
OBJECT_STORE_BYTES = 100 * 2**20


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago; all open at once, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def die_with_parent() -> None:
    """In a child, before it becomes the server: SIGTERM when the test process ends, however it ends (Linux)."""
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


class RayHead:
    """`ray start --head --block` in a subprocess, with token authentication. Use it in a `with`."""

    def __init__(self, *, num_cpus: int = 1, environment: dict[str, str] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fvray", dir="/tmp"))  # short: Ray puts unix sockets below it
        # Ray starts jobs through a shell and does not quote the interpreter, so a head cannot live in a path with a
        # space. A link without one helps, in a test as on a real machine.
        (self.folder / "environment").symlink_to(BIN.parent, target_is_directory=True)
        self.bin = self.folder / "environment" / BIN.name
        self.token_path = self.folder / "token"
        self.token_path.write_text(secrets.token_hex(32))
        self.token_path.chmod(0o600)
        self.environment = {
            **os.environ,
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_path),
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_WAIT_POLICY": "PASSIVE",
            **(environment or {}),
        }
        for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "MLFLOW_TRACKING_URI"):
            self.environment.pop(name, None)
        self.num_cpus = num_cpus
        self.nodes: list[subprocess.Popen] = []

    def __enter__(self) -> "RayHead":
        self.gcs_port, dashboard, client, agent, grpc, metrics = free_ports(6)
        self.url = f"http://127.0.0.1:{dashboard}"
        self._start(
            "--head", "--port", self.gcs_port, "--dashboard-host", "127.0.0.1", "--dashboard-port", dashboard,
            "--ray-client-server-port", client, "--temp-dir", self.folder / "ray",
            "--dashboard-agent-listen-port", agent, "--dashboard-agent-grpc-port", grpc,
            "--metrics-export-port", metrics, "--num-cpus", self.num_cpus,
        )  # fmt: skip
        self._wait_for(lambda: len(self.alive_nodes()) == 1, "the head")
        return self

    def add_node(self, *, num_cpus: int = 1) -> subprocess.Popen:
        """One more raylet on this machine; returns its process, which `kill` ends."""
        before = len(self.alive_nodes())
        for last in (False, True):  # Ray gives a new node 30 s to register, which a busy machine may not manage
            agent, grpc, metrics = free_ports(3)
            process = self._start(
                "--address", f"{self.address()}:{self.gcs_port}", "--num-cpus", num_cpus,
                "--dashboard-agent-listen-port", agent, "--dashboard-agent-grpc-port", grpc,
                # A folder of its own, as another machine has: Ray unpacks a job's code there anew for each node.
                "--metrics-export-port", metrics, "--temp-dir", self.folder / f"n{agent}",
            )  # fmt: skip
            self._wait_for(lambda: len(self.alive_nodes()) > before or self._has_ended(-1), "a node", last)
            if process.poll() is None:
                return process
            self.nodes.remove(process)
        raise AssertionError("unreachable")

    def kill(self, process: subprocess.Popen) -> None:
        """End a node the hard way: every process of it with SIGKILL, as a lost machine would."""
        family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for one in family:
            with_nothing_to_say(one.kill)
        process.wait(30)
        self.nodes.remove(process)

    def __exit__(self, *args: object) -> None:
        for process in reversed(self.nodes):
            family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
            _, alive = psutil.wait_procs(family, timeout=10)
            for one in alive:  # descendants of our own process, nothing else
                with_nothing_to_say(one.kill)
        shutil.rmtree(self.folder, ignore_errors=True)

    def alive_nodes(self) -> list[dict]:
        headers = {"Authorization": f"Bearer {self.token_path.read_text()}"}
        try:
            answer = requests.get(f"{self.url}/api/v0/nodes", headers=headers, timeout=20)
            rows = answer.json()["data"]["result"]["result"]
        except (requests.RequestException, KeyError, ValueError):
            return []
        return [row for row in rows if row["state"] == "ALIVE"]

    def address(self) -> str:
        return self.alive_nodes()[0]["node_ip"]

    def log_text(self) -> str:
        """Everything Ray wrote into its log files."""
        files = self.folder.rglob("logs/**/*")
        return "\n".join(path.read_text(errors="replace") for path in files if path.is_file())

    def _start(self, *options: object) -> subprocess.Popen:
        ray = [str(self.bin / "python"), str(self.bin / "ray")]
        command = [*ray, "start", "--block", "--disable-usage-stats", "--object-store-memory"]
        log = (self.folder / f"start-{time.monotonic_ns()}.log").open("wb")
        process = subprocess.Popen(
            [*command, str(OBJECT_STORE_BYTES), *map(str, options)],
            env=self.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
            cwd=self.folder,
        )
        self.nodes.append(process)
        return process

    def _has_ended(self, which: int) -> bool:
        return self.nodes[which].poll() is not None

    def _wait_for(self, ready, what: str, last: bool = True, timeout_s: float = 240.0) -> None:
        """Until `ready`; RuntimeError with Ray's own words when a process has ended and no further try is left."""
        until = time.monotonic() + timeout_s
        while not ready() or (last and any(process.poll() is not None for process in self.nodes)):
            ended = last and any(process.poll() is not None for process in self.nodes)
            if ended or time.monotonic() > until:
                logs = "\n".join(path.read_text() for path in sorted(self.folder.glob("start-*.log")))
                self.__exit__()
                raise RuntimeError(f"{what} did not start:\n{logs[-3000:]}")
            time.sleep(0.3)


def with_nothing_to_say(action) -> None:
    """Run it; a process that is gone already is what was wanted."""
    try:
        action()
    except psutil.NoSuchProcess:
        pass
