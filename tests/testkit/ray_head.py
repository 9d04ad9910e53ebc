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
            "RAY_metrics_report_interval_ms": "1000",  # 10 s otherwise
            **(environment or {}),
        }
        for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "MLFLOW_TRACKING_URI"):
            self.environment.pop(name, None)
        self.num_cpus = num_cpus
        self.nodes: list[subprocess.Popen] = []
        self._ids: dict[int, str] = {}
        self._metrics_ports: list[int] = []

    def __enter__(self) -> "RayHead":
        self.gcs_port, dashboard, client, agent, grpc, metrics = free_ports(6)
        self.url = f"http://127.0.0.1:{dashboard}"
        self._metrics_ports.append(metrics)
        self._start(
            "--head", "--port", self.gcs_port, "--dashboard-host", "127.0.0.1", "--dashboard-port", dashboard,
            "--ray-client-server-port", client, "--temp-dir", self.folder / "ray",
            "--dashboard-agent-listen-port", agent, "--dashboard-agent-grpc-port", grpc,
            "--metrics-export-port", metrics, "--num-cpus", self.num_cpus,
        )  # fmt: skip
        self._wait_for(lambda: len(self.alive_nodes()) == 1, "the head")
        return self

    def add_node(self, *, num_cpus: int = 1) -> subprocess.Popen:
        """One more raylet on this machine; returns its process, which `kill` ends and `node_id` names."""
        before = {row["node_id"] for row in self.alive_nodes()}
        for last in (False, True):  # Ray gives a new node 30 s to register, which a busy machine may not manage
            agent, grpc, metrics = free_ports(3)
            self._metrics_ports.append(metrics)
            process = self._start(
                "--address", f"{self.address()}:{self.gcs_port}", "--num-cpus", num_cpus,
                "--dashboard-agent-listen-port", agent, "--dashboard-agent-grpc-port", grpc,
                # A folder of its own, as another machine has: Ray unpacks a job's code there anew for each node.
                "--metrics-export-port", metrics, "--temp-dir", self.folder / f"n{agent}",
            )  # fmt: skip
            self._wait_for(lambda: len(self.alive_nodes()) > len(before) or self._has_ended(-1), "a node", last)
            if process.poll() is None:
                (self._ids[process.pid],) = {row["node_id"] for row in self.alive_nodes()} - before
                return process
            self.nodes.remove(process)
        raise AssertionError("unreachable")

    def node_id(self, process: subprocess.Popen) -> str:
        return self._ids[process.pid]

    def kill(self, process: subprocess.Popen) -> None:
        """End a node the hard way: every process of it with SIGKILL, as a lost machine would."""
        family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for one in family:
            with_nothing_to_say(one.kill)
        process.wait(30)
        self.nodes.remove(process)

    def __exit__(self, kind: type[BaseException] | None = None, *rest: object) -> None:
        """End everything. AssertionError when a process outlives its head by itself, or a file cannot be removed."""
        for process in reversed(self.nodes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
        _, alive = psutil.wait_procs(self.family(), timeout=60)
        names = [with_nothing_to_say(lambda one=one: " ".join(one.cmdline())[:200]) for one in alive]
        for one in alive:  # ours by the token path in their environment, nothing else
            with_nothing_to_say(one.kill)
        psutil.wait_procs(alive, timeout=10)
        shutil.rmtree(self.folder, ignore_errors=True)
        if kind is None:
            assert not alive, f"left behind by the head: {names}"
            assert not self.folder.exists(), f"left behind: {[*self.folder.rglob('*')][:20]}"

    def family(self) -> list[psutil.Process]:
        """Every process that descends from this head or speaks with it: they inherit the path of its token."""
        found = []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get("RAY_AUTH_TOKEN_PATH") == str(self.token_path)
            except psutil.Error:
                continue
            if ours and process.pid != os.getpid():
                found.append(process)
        return found

    def alive_nodes(self) -> list[dict]:
        try:
            return [row for row in self.state("nodes") if row["state"] == "ALIVE"]
        except (requests.RequestException, KeyError, ValueError):
            return []

    def state(self, what: str) -> list[dict]:
        """Rows of Ray's own state API: "nodes", "actors" or "tasks", those that ended included."""
        headers = {"Authorization": f"Bearer {self.token_path.read_text()}"}
        query = {"limit": "10000", "detail": "true"}
        answer = requests.get(f"{self.url}/api/v0/{what}", params=query, headers=headers, timeout=20)
        return answer.json()["data"]["result"]["result"]

    def address(self) -> str:
        return self.alive_nodes()[0]["node_ip"]

    def metrics(self) -> str:
        """What Prometheus would read from every node that answers."""
        pages = []
        for port in self._metrics_ports:
            try:
                pages.append(requests.get(f"http://{self.address()}:{port}/metrics", timeout=20).text)
            except requests.RequestException:
                continue
        return "\n".join(pages)

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
                self.__exit__(RuntimeError)
                raise RuntimeError(f"{what} did not start:\n{logs[-3000:]}")
            time.sleep(0.3)


def with_nothing_to_say(action):
    """Run it; a process that is gone already is what was wanted."""
    try:
        return action()
    except psutil.NoSuchProcess:
        return None
