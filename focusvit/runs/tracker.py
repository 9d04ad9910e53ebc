"""Runs in MLflow. This is the one module that knows it; everything is sent with an explicit run id.

The truth of a training is its run directory (`metrics.jsonl`); the server gets a copy through `shipper`.
"""

import contextlib
import json
import logging
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import UsageError
from pipeline.io.storage import without_password

Point = tuple[str, int, float, int]
"""name, samples seen, value, time in ms since 1970"""
_WATCHDOG_S = 5.0  # to leave after its last word
_MIN_FREE_BYTES = 8 * 2**20  # MLflow makes a fresh database of 1 MB and writes it twice on the way; pictures follow


def default_tracking_uri(option: str | None = None) -> str:
    """The store to use: `option`, else MLFLOW_TRACKING_URI, else sqlite in `mlflow.db` of the current folder.

    A relative sqlite path is made absolute, since other processes have other current folders. Raises `UsageError` for
    a plain folder: MLflow 3 no longer writes to those.
    """
    uri = option or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    if uri.startswith("sqlite:///"):
        return f"sqlite:///{Path(uri.removeprefix('sqlite:///')).absolute()}"
    if "://" not in uri or uri.startswith("file:"):
        raise UsageError(
            f"The tracking URI '{uri}' is a folder, and MLflow no longer writes runs to folders. "
            f"Use a database file (sqlite:///{uri.removeprefix('file:').rstrip('/')}/mlflow.db) or a server (http://host:5000)."
        )
    return uri


def check_reachable(uri: str, timeout_s: float = 5.0) -> None:
    """Raise `UsageError` unless the tracking store can be used right now."""
    if not uri.startswith(("http://", "https://")):
        folder = Path(uri.removeprefix("sqlite:///")).parent
        if uri.startswith("sqlite:///") and not os.access(folder, os.W_OK):
            raise UsageError(f"The tracking store {uri} cannot be written: {folder} is missing or read-only. Make it.")
        if uri.startswith("sqlite:///") and (free := shutil.disk_usage(folder).free) < _MIN_FREE_BYTES:
            raise UsageError(
                f"The tracking store {uri} cannot grow: {free / 1e6:.1f} MB are free on the disk of {folder}. Make "
                "room there, or name another store with --tracking-uri (or MLFLOW_TRACKING_URI)."
            )
        return
    shown = without_password(uri)
    try:
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=timeout_s).close()
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            raise UsageError(f"The tracking server {shown} answers with error {error.code}. Look at its log.") from None
    except OSError as error:
        raise UsageError(
            f"The tracking server {shown} does not answer ({getattr(error, 'reason', error)}). Start it, correct "
            "--tracking-uri (or MLFLOW_TRACKING_URI), or leave both out to write to a local database file."
        ) from None


def _client(uri: str) -> Any:
    # A dead server must be given up in seconds, not minutes: the shipper tries again by itself.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # table set-up and the like is no news
    return mlflow.MlflowClient(tracking_uri=uri)


class Tracker:
    """One MLflow run. Use it in a `with`: leaving by an exception marks the run, so that none stays 'running'."""

    def __init__(self, uri: str, client: Any, run_id: str, experiment_id: str) -> None:
        self.uri, self.run_id, self.experiment_id = uri, run_id, experiment_id
        self._client = client
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._finished = False

    @classmethod
    def open(
        cls,
        uri: str,
        experiment: str,
        run_name: str,
        *,
        run_id: str | None = None,
        parent_run_id: str | None = None,
        tags: dict[str, str] | None = None,
    ) -> "Tracker":
        """Start a run, or go on with `run_id`. Raises `UsageError` when the store does not answer or lacks the run."""
        check_reachable(uri)
        client = _client(uri)
        from mlflow.exceptions import MlflowException

        try:
            if run_id is not None:
                experiment_id = client.get_run(run_id).info.experiment_id
                client.update_run(run_id, status="RUNNING")
            else:
                experiment_id = _experiment(client, uri, experiment)
                all_tags = dict(tags or {})
                if parent_run_id:
                    all_tags["mlflow.parentRunId"] = parent_run_id
                run_id = client.create_run(experiment_id, run_name=run_name, tags=all_tags).info.run_id
        except MlflowException as error:
            refused = "takes no new run" if run_id is None else f"has no run {run_id} to go on with"
            shown = without_password(uri)
            raise UsageError(
                f"The tracking store {shown} {refused} ({_first_line(error)}). Check your access to it, or name "
                "another with --tracking-uri: the one that a run was started with, to go on with that run."
            ) from None
        return cls(uri, client, run_id, experiment_id)

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if not self._finished:
            interrupted = kind is not None and issubclass(kind, (KeyboardInterrupt, SystemExit))
            with contextlib.suppress(Exception):  # the first error is the one to see, not a dead server
                self.finish("FINISHED" if kind is None else "KILLED" if interrupted else "FAILED")

    def watch(self) -> None:
        """Start a small process that marks the run KILLED when this one dies without a word (SIGKILL, power)."""
        self._watchdog = subprocess.Popen(
            [sys.executable, "-m", "focusvit.runs.watchdog", self.run_id],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._watchdog.stdin
        self._watchdog.stdin.write(
            f"{self.uri}\n".encode()
        )  # not an argument: `ps` shows those, and it may hold a password
        self._watchdog.stdin.flush()

    def params(self, values: dict[str, Any]) -> None:
        """Log what the run does not have yet (a resumed run has them already)."""
        from mlflow.entities import Param

        known = set(self._client.get_run(self.run_id).data.params)
        fresh = [Param(key, str(value)[:6000]) for key, value in values.items() if key not in known]
        for start in range(0, len(fresh), 100):
            self._client.log_batch(self.run_id, params=fresh[start : start + 100])

    def tags(self, values: dict[str, Any]) -> None:
        for key, value in values.items():
            self._client.set_tag(self.run_id, key, str(value)[:5000])

    def metrics(self, points: list[Point]) -> None:
        """Send points, 1000 at a time."""
        from mlflow.entities import Metric

        for start in range(0, len(points), 1000):
            part = [
                Metric(name, value, time_ms, samples) for name, samples, value, time_ms in points[start : start + 1000]
            ]
            self._client.log_batch(self.run_id, metrics=part)

    def places(self) -> set[tuple[str, int]]:
        """(metric, samples count) of every point that the server has."""
        names = self._client.get_run(self.run_id).data.metrics
        return {(name, m.step) for name in names for m in self._client.get_metric_history(self.run_id, name)}

    def image(self, picture: np.ndarray | str, name: str) -> None:
        """An RGB uint8 picture (or a picture file) as images/`name`.png."""
        if isinstance(picture, np.ndarray):
            self._client.log_image(self.run_id, picture, artifact_file=f"images/{name}.png")
        else:
            self._client.log_artifact(self.run_id, picture, "images")

    def step_image(self, picture: np.ndarray, key: str, step: int) -> None:
        """An RGB uint8 picture of a series: the UI shows the series as a grid and with a slider over its steps."""
        self._client.log_image(self.run_id, picture, key=key, step=step)

    def table(self, columns: dict[str, list[Any]], name: str) -> None:
        self._client.log_table(self.run_id, data=columns, artifact_file=f"tables/{name}.json")

    def figure(self, figure: Any, name: str) -> None:
        self._client.log_figure(self.run_id, figure, f"images/{name}.png")

    def text(self, text: str, name: str) -> None:
        self._client.log_text(self.run_id, text, name)

    def artifact(self, path: str, folder: str | None = None) -> None:
        self._client.log_artifact(self.run_id, path, folder)

    def dataset(self, name: str, identity: str, uri: str, context: str = "train") -> None:
        """Name the data set as an input of the run, with its identity as digest."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        entity = Dataset(name=name, digest=identity[:36], source_type="local", source=json.dumps({"uri": uri}))
        self._client.log_inputs(self.run_id, [DatasetInput(entity, [InputTag("mlflow.data.context", context)])])

    @property
    def client(self) -> Any:
        """MLflow's own client of this store."""
        return self._client

    def running(self) -> None:
        """Set the run back to RUNNING after MLflow's fluent API has closed it."""
        self._client.update_run(self.run_id, status="RUNNING")

    def finish(self, status: str = "FINISHED") -> None:
        """Close the run as FINISHED, FAILED or KILLED."""
        self._finished = True
        try:
            self._client.set_terminated(self.run_id, status=status, end_time=int(time.time() * 1000))
        finally:
            if self._watchdog and self._watchdog.stdin:
                with contextlib.suppress(OSError, subprocess.TimeoutExpired):  # it goes when it has read this
                    self._watchdog.stdin.write(b"done\n")
                    self._watchdog.stdin.close()
                    self._watchdog.wait(timeout=_WATCHDOG_S)
                self._watchdog = None


def _experiment(client: Any, uri: str, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage == "deleted":
            shown = without_password(uri)
            raise UsageError(
                f"The experiment '{name}' of {shown} is deleted. Restore it, or take another --experiment."
            )
        return found.experiment_id
    from mlflow.exceptions import MlflowException

    location = None
    if uri.startswith("sqlite:///"):  # beside the database, wherever the command was started
        location = (Path(uri.removeprefix("sqlite:///")).parent / "mlartifacts").as_uri()
    try:
        return client.create_experiment(name, artifact_location=location)
    except MlflowException:
        found = client.get_experiment_by_name(name)
        if found is None:  # else another process made it in this moment
            raise
        return found.experiment_id


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200]
