"""Sends the points of a run directory to the tracking store, beside the training and never in its way.

It reads `metrics.jsonl`, which training processes write, and sends what the server does not have. A server that goes
down costs nothing but delay; what is still unsent at the end stays in the file, and the next start sends it.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from pipeline.io import storage

from .metrics_log import POINTS, chunk, parse_metrics
from .run_dir import RunDir
from .tracker import Point, Tracker

log = logging.getLogger(__name__)


def _shown(name: str) -> str:
    """The name of a metric in MLflow, whose pages sort sections by name: scores come before what the machine did."""
    return name.replace("perf/", "work/", 1) if name.startswith("perf/") else name


class Shipper:
    """Start it, train, then `finish`. `on_point` sees every point once, also without a server, until it raises."""

    def __init__(
        self,
        run_dir: str,
        tracker: Tracker | None,
        *,
        on_point: Callable[[dict[str, Any]], None] | None = None,
        every_s: float | None = None,
        name: str = POINTS,
    ) -> None:
        """`every_s`: how often it looks for points; by default each second on a disk, each fifth in a store."""
        self._run_dir, self._name, self._tracker, self._on_point = RunDir(run_dir), name, tracker, on_point
        self._local = storage.is_local(run_dir)
        self._every_s = every_s or (1.0 if self._local else 5.0)
        self._number = self._offset = 0
        self._unsent: list[Point] = []
        self._server_has: set[tuple[str, int]] | None = None
        self._retry_at, self._delay_s = 0.0, 1.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shipper", daemon=True)

    def start(self) -> "Shipper":
        self._thread.start()
        return self

    def finish(self, timeout_s: float = 30.0) -> int:
        """Send the rest; return how many points could not be sent (they stay in metrics.jsonl)."""
        self._stop.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive():  # a hanging server: leave it to the next start
            return len(self._unsent)
        deadline = time.monotonic() + timeout_s
        self._read()
        while self._tracker and self._unsent and time.monotonic() < deadline:
            self._retry_at = 0.0
            self._send()
            if self._unsent:
                time.sleep(1.0)
        return len(self._unsent) if self._tracker else 0

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self._read()
            self._send()

    def _read(self) -> None:
        """Take over the whole lines that are new. Never raises: a missing or torn file is read again later."""
        place, points = chunk(self._run_dir, self._name, self._number), list[dict[str, Any]]()
        try:
            more = storage.exists(place)
            while more:
                # Asked before the rest is read: of a chunk with a successor nothing can be missing then.
                more = not self._local and storage.exists(chunk(self._run_dir, self._name, self._number + 1))
                data = storage.read_bytes(place, self._offset)
                whole = data[: data.rfind(b"\n") + 1]
                points += parse_metrics(whole)
                self._offset += len(whole)
                if more:
                    self._number, self._offset = self._number + 1, 0
                    place = chunk(self._run_dir, self._name, self._number)
        except (OSError, ValueError) as error:
            log.warning("cannot read %s: %s", place, error)
        for point in points:
            self._unsent += [(_shown(n), point["samples"], v, point["time_ms"]) for n, v in point["values"].items()]
            if self._on_point:
                try:
                    self._on_point(point)
                except Exception as error:  # a terminal that is gone must not end the sending
                    log.warning("progress is no longer shown: %s", error)
                    self._on_point = None

    def _send(self) -> None:
        if not self._tracker or not self._unsent or time.monotonic() < self._retry_at:
            return
        try:
            if self._server_has is None:
                self._server_has = self._tracker.places()
            # Not by the last place: a resume with smaller log_every_steps writes points between those there.
            new = [p for p in self._unsent if p[:2] not in self._server_has]
            self._tracker.metrics(new)
            self._server_has.update(p[:2] for p in new)
            self._unsent = []
            self._delay_s = 1.0
        except Exception as error:  # whatever a server does must not reach the training
            # A batch whose answer was lost may have arrived: ask the server again before the next try.
            self._server_has = None
            self._retry_at, self._delay_s = time.monotonic() + self._delay_s, min(60.0, 2 * self._delay_s)
            log.warning("tracking store does not take points (%s); trying again, nothing is lost", str(error)[:200])
