"""Runs in MLflow; everything is sent with an explicit run id, and without secrets.

The truth of a training is its run directory (`metrics.jsonl`); the server gets a copy through `shipper`.
"""

import contextlib
import functools
import json
import subprocess
import sys
import time
from typing import Any

import numpy as np

from pipeline.errors import UsageError
from pipeline.secrets import masked

from .landing import experiment_tags
from .store import artifact_root, check_reachable, open_client, refused

Point = tuple[str, int, float, int]
"""name, samples seen, value, time in ms since 1970"""
_WATCHDOG_S = 5.0  # to leave after its last word


class _PoliteClient:
    """MLflow's client; what its store refuses, at whatever call, is a `UsageError` in one paragraph."""

    def __init__(self, client: Any, uri: str) -> None:
        from mlflow.exceptions import MlflowException
        from requests import RequestException
        from sqlalchemy.exc import SQLAlchemyError

        self._client, self._uri = client, uri
        self._kinds = (MlflowException, SQLAlchemyError, RequestException)

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)

        @functools.wraps(call)
        def politely(*given: Any, **named: Any) -> Any:
            try:
                return call(*given, **named)
            except self._kinds as error:
                raise refused(self._uri, error, "refuses a part of the run") from error

        return politely


class Tracker:
    """One MLflow run. Use it in a `with`: leaving by an exception marks the run, so that none stays 'running'."""

    def __init__(self, uri: str, client: Any, run_id: str, name: str) -> None:
        self.uri, self.run_id, self.name = uri, run_id, name
        self.client = client  # MLflow's own
        self._client = _PoliteClient(client, uri)
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
        what = "takes no new run" if run_id is None else f"has no run {run_id} to go on with"
        try:
            client = open_client(uri)
            if run_id is not None:
                run_name = client.get_run(run_id).info.run_name
                client.update_run(run_id, status="RUNNING")
            else:
                experiment_id = _experiment(client, uri, experiment, (tags or {}).get("focusvit.kind", ""))
                all_tags = {key: masked(value) for key, value in (tags or {}).items()}
                if parent_run_id:
                    all_tags["mlflow.parentRunId"] = parent_run_id
                run_id = client.create_run(experiment_id, run_name=run_name, tags=all_tags).info.run_id
        except UsageError:
            raise
        except Exception as error:  # of MLflow, of its database library, of a driver: each has kinds of its own
            raise refused(uri, error, what) from error
        return cls(uri, client, run_id, run_name)

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
        # Not an argument: `ps` shows those, and it may hold a password.
        self._watchdog.stdin.write(f"{self.uri}\n".encode())
        self._watchdog.stdin.flush()

    def params(self, values: dict[str, Any]) -> None:
        """Log what the run does not have yet (a resumed run has them already)."""
        from mlflow.entities import Param

        known = set(self._client.get_run(self.run_id).data.params)
        fresh = [Param(key, masked(str(value))[:6000]) for key, value in values.items() if key not in known]
        for start in range(0, len(fresh), 100):
            self._client.log_batch(self.run_id, params=fresh[start : start + 100])

    def tags(self, values: dict[str, Any]) -> None:
        for key, value in values.items():
            self._client.set_tag(self.run_id, key, masked(str(value))[:5000])

    def metrics(self, points: list[Point]) -> None:
        """Send points, 1000 at a time."""
        from mlflow.entities import Metric

        for start in range(0, len(points), 1000):
            part = [
                Metric(name, value, time_ms, samples) for name, samples, value, time_ms in points[start : start + 1000]
            ]
            self._client.log_batch(self.run_id, metrics=part)

    def model_scores(self, model_id: str, points: list[Point], dataset: str, identity: str) -> None:
        """Show points of the run on the page of a logged model too, with the data set that they were measured on."""
        from mlflow.entities import Metric

        measured = {"dataset_name": dataset, "dataset_digest": _digest(identity), "run_id": self.run_id}
        values = [
            Metric(name, value, time_ms, samples, model_id=model_id, **measured)
            for name, samples, value, time_ms in points
        ]
        self._client.log_batch(self.run_id, metrics=values)

    def places(self) -> set[tuple[str, int]]:
        """(metric, samples count) of every point that the server has."""
        names = self._client.get_run(self.run_id).data.metrics
        return {(name, m.step) for name in names for m in self._client.get_metric_history(self.run_id, name)}

    def image(self, picture: np.ndarray, place: str) -> None:
        """An RGB uint8 picture as `place`.png. The folder in `place` names the purpose: a reviewer browses by it."""
        self._client.log_image(self.run_id, picture, artifact_file=f"{place}.png")

    def table(self, columns: dict[str, list[Any]], place: str) -> None:
        self._client.log_table(self.run_id, data=columns, artifact_file=f"{place}.json")

    def figure(self, figure: Any, place: str) -> None:
        self._client.log_figure(self.run_id, figure, f"{place}.png")

    def text(self, text: str, name: str) -> None:
        self._client.log_text(self.run_id, masked(text), name)

    def dataset(self, name: str, identity: str, uri: str, context: str = "train") -> None:
        """Name the data set as an input of the run, with its identity as digest."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        entity = Dataset(
            name=name, digest=_digest(identity), source_type="local", source=json.dumps({"uri": masked(uri)})
        )
        self._client.log_inputs(self.run_id, [DatasetInput(entity, [InputTag("mlflow.data.context", context)])])

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


def _digest(identity: str) -> str:
    return identity[:36]  # all that MLflow keeps


def _experiment(client: Any, uri: str, name: str, kind: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage == "deleted":
            raise UsageError(f"The experiment '{name}' of {uri} is deleted. Restore it, or take another --experiment.")
        return found.experiment_id
    from mlflow.exceptions import MlflowException

    try:
        return client.create_experiment(name, artifact_location=artifact_root(uri), tags=experiment_tags(kind))
    except MlflowException:
        found = client.get_experiment_by_name(name)
        if found is None:  # else another process made it in this moment
            raise
        return found.experiment_id
