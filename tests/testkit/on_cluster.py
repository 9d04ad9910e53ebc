"""A head, an MLflow server and a disk that both see, driven through the console command as a user would."""

import json
import secrets
import subprocess
from pathlib import Path

import requests

from testkit.mlflow_server import MlflowServer
from testkit.ray_head import BIN, RayHead


class Cluster:
    """Everything goes through `focusvit`; MLflow is asked over its REST interface, as any other program would."""

    def __init__(self, head: RayHead, server: MlflowServer, folder: Path) -> None:
        self.head, self.server, self.folder = head, server, folder
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.secret = secrets.token_hex(16)
        self.said = ""
        self.environment = {
            **head.environment,
            "TMPDIR": str(self.temporary),
            "RAY_API_SERVER_ADDRESS": head.url,
            "MLFLOW_TRACKING_URI": server.url,
            # Nobody here asks for them; they travel with every job as a user's would.
            "MLFLOW_TRACKING_USERNAME": "somebody",
            "MLFLOW_TRACKING_PASSWORD": self.secret,
            "HF_TOKEN": self.secret,
        }

    def focusvit(self, *argv: object, timeout_s: float = 900, expect: int = 0) -> subprocess.CompletedProcess:
        done = subprocess.run(
            [str(BIN / "focusvit"), *map(str, argv)],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            cwd=self.folder,
        )
        self.said += done.stdout + done.stderr
        assert done.returncode == expect, f"{argv}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done

    def submit(self, *argv: object, **options) -> str:
        return self.focusvit("submit", "--", *argv, **options).stdout

    def start(self, *argv: object) -> str:
        """Submit and detach; returns the name of the job."""
        return self.focusvit("submit", "--detach", "--", *argv).stdout.strip()

    def finish(self, job: str) -> str:
        return self.focusvit("jobs", "logs", job, "--follow").stdout

    def status(self, job: str) -> dict:
        return json.loads(self.focusvit("jobs", "status", job, "--json").stdout)

    def tasks(self, job: str, function: str) -> list[dict]:
        """Ray's records of the tasks of a job that run `function`: node_id, state, error_message."""
        return [row for row in self._of(job, "tasks") if row["func_or_class_name"].rsplit(".")[-1] == function]

    def train_workers(self, job: str) -> list[dict]:
        """Ray's records of the training workers of a job, of every start: node_id, state."""
        return [row for row in self._of(job, "actors") if "RayTrainWorker" in row["class_name"]]

    def metric(self, name: str, job: str) -> float | None:
        """The sum over the nodes of a metric of ours as Prometheus reads it; None when no node shows it."""
        lines = [line for line in self.head.metrics().splitlines() if line.startswith(f"ray_{name}{{")]
        values = [float(line.rsplit(" ", 1)[1]) for line in lines if f'job="{job}"' in line]
        return sum(values) if values else None

    def log_lines(self, event: str, job: str) -> list[dict]:
        """What the workers of a job logged as JSON."""
        lines = [line for line in self.head.log_text().splitlines() if line.startswith('{"time"')]
        found = [json.loads(line) for line in lines if f'"{event}"' in line]
        return [line for line in found if line["job"] == job and line["event"] == event]

    def node_ids(self) -> set[str]:
        return {row["node_id"] for row in self.head.alive_nodes()}

    def _of(self, job: str, what: str) -> list[dict]:
        known = {row["submission_id"]: row["job_id"] for row in self.head.state("jobs")}
        return [row for row in self.head.state(what) if row["job_id"] == known.get(job)]

    def mlflow(self, path: str, **body: object) -> dict:
        answer = requests.post(f"{self.server.url}/api/2.0/mlflow/{path}", json=body, timeout=20)
        answer.raise_for_status()
        return answer.json()

    def runs(self, experiment: str = "focusvit") -> list[dict]:
        found = self.mlflow("experiments/search", max_results=100)["experiments"]
        ids = [one["experiment_id"] for one in found if one["name"] == experiment]
        return self.mlflow("runs/search", experiment_ids=ids, max_results=1000).get("runs", []) if ids else []

    def points(self, run_id: str, metric: str) -> list[tuple[int, float]]:
        query = {"run_id": run_id, "metric_key": metric, "max_results": 25000}
        answer = requests.get(f"{self.server.url}/api/2.0/mlflow/metrics/get-history", params=query, timeout=20)
        return [(point["step"], point["value"]) for point in answer.json().get("metrics", [])]
