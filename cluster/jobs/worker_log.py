"""What the processes of a job tell to machines: one JSON object a line in Ray's log files, and Ray's metrics.

Our code says it with `log.info("shard finished", extra={"facts": {...}})`, which is silent everywhere else. Ray keeps
what a worker writes to stderr (`worker-*.err` in the session's logs, "Logs" of a task or an actor in the dashboard),
and every node offers its metrics to Prometheus on its metrics port.
"""

import json
import logging
import os
import socket
import sys
from typing import Any

from tqdm import tqdm

from pipeline.secrets import masked

from .environment import JOB_VARIABLE, load_secrets
from .package import PACKAGES

# Event -> {metric: (kind, fact, description)}. A counter adds the fact up (None: 1 each time), a gauge shows the last.
METRICS: dict[str, dict[str, tuple[str, str | None, str]]] = {
    "shard finished": {
        "focusvit_shards": ("counter", None, "shards written"),
        "focusvit_images": ("counter", "num_samples", "images in these shards"),
        "focusvit_bad_images": ("counter", "num_bad", "images that could not be prepared"),
    },
    "shard tried again": {
        "focusvit_shard_retries": ("counter", None, "shards begun again after their worker or a store failed"),
    },
    "training workers failed": {
        "focusvit_worker_failures": ("counter", None, "times that the workers of a training failed"),
    },
    "point": {
        "focusvit_train_samples": ("gauge", "samples", "samples seen by the training"),
        "focusvit_train_images_per_s": ("gauge", "perf/img_per_s", "throughput of the training"),
        "focusvit_train_loss": ("gauge", "train/loss", "loss of the training"),
        "focusvit_val_top1": ("gauge", "val/top1", "top-1 of the last scoring"),
    },
}


def event_of(record: logging.LogRecord) -> str:
    """The name of what happened, when the message is a sentence for people; else the message."""
    return getattr(record, "event", "") or record.getMessage()


class JsonLines(logging.Formatter):
    """time (s since 1970), level, event, job, node, pid, and the facts of the event: run, shard, rank, ..."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "event": event_of(record),
            "job": os.environ.get(JOB_VARIABLE, ""),
            "node": socket.gethostname(),
            "pid": record.process,
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            told["error"] = self.formatException(record.exc_info)
        return masked(json.dumps(told))


class RayMetrics(logging.Handler):
    """Counts and shows the numbers of METRICS, each with the job's name as a tag."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[str, Any] = {}

    def emit(self, record: logging.LogRecord) -> None:
        facts: dict[str, Any] = getattr(record, "facts", {})
        tags = {"job": os.environ.get(JOB_VARIABLE, "")}
        for name, (kind, fact, description) in METRICS.get(event_of(record), {}).items():
            value = 1 if fact is None else facts.get(fact)
            if value is None or (kind == "counter" and not value):  # Ray refuses to add 0
                continue
            metric = self._metric(name, kind, description)
            metric.inc(value, tags) if kind == "counter" else metric.set(value, tags)

    def _metric(self, name: str, kind: str, description: str) -> Any:
        if name not in self._made:
            from ray.util import metrics

            make = metrics.Counter if kind == "counter" else metrics.Gauge
            self._made[name] = make(name, description=description, tag_keys=("job",))
        return self._made[name]


def start_worker() -> None:
    """Ray calls it in every worker process of a job before any task: its secrets, its log, its metrics."""
    load_secrets()
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(JsonLines())
    _listen(lines, RayMetrics())


class BesideBars(logging.Handler):
    """Text on a line of its own, although a progress bar may stand on the last one."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(masked(self.format(record)), file=sys.stderr)


def start_driver() -> None:
    """The driver's log is for people: warnings as text, no lines for machines; and metrics."""
    _listen(BesideBars(logging.WARNING), RayMetrics())


def _listen(*handlers: logging.Handler) -> None:
    for package in PACKAGES:
        logger = logging.getLogger(package)
        logger.handlers = list(handlers)
        logger.propagate = False
        logger.setLevel(logging.INFO)
