"""The curves of a run: one line per point, {"samples", "time_ms", "values": {name: number}, "crc32" of the rest}.

On a disk they are one file that grows. An object store has no append: there a log is a row of chunks, `metrics.jsonl`,
`metrics.jsonl.1`, ..., of which only the last one is written again, so that a point costs the same at the end of a long
run as at its beginning; and they are sent by a thread of their own, so that no training waits for a store.
"""

import logging
import math
import threading
import time
import zlib
from pathlib import Path
from typing import Any

from pipeline.errors import DataError
from pipeline.io import storage
from pipeline.io.json_text import json_text

from .run_dir import RunDir
from .sealed_json import parse_object

log = logging.getLogger(__name__)
POINTS = "metrics.jsonl"
CHUNK_BYTES = 256 * 1024
"""a chunk that has grown so far is finished"""


def chunk(run: RunDir, name: str, number: int) -> str:
    """The place of one chunk of a log; on a disk there is number 0 alone."""
    return run.path(f"{name}.{number}" if number else name)


def read_points(run: RunDir, name: str = POINTS) -> list[dict[str, Any]]:
    """All points of a log; none where it does not exist."""
    points = []
    for number in range(_num_chunks(run, name)):
        place = chunk(run, name, number)
        points += parse_metrics(storage.read_bytes(place), place)
    return points


def _num_chunks(run: RunDir, name: str) -> int:
    if storage.is_local(run.uri):
        return int(storage.exists(run.path(name)))
    found = set(storage.list_names(run.uri))
    count = int(name in found)
    while count and f"{name}.{count}" in found:
        count += 1
    return count


def parse_metrics(data: bytes, place: str = "metrics.jsonl") -> list[dict[str, Any]]:
    """The points of a metrics.jsonl. A torn last line (a kill while writing) is left out; so is a damaged line, and
    that is said. `place` names the file in what is said.
    """
    points = []
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        if line.strip():
            try:
                points.append(_point(line))
            except (DataError, ValueError, TypeError, KeyError, AttributeError):
                log.warning("%s: line %d is damaged and left out: %s", place, number, line[:60])
    return points


_CRC = b', "crc32": '


def _line(point: dict[str, Any]) -> bytes:
    body = json_text(point).encode()[:-1]
    return body + _CRC + b"%d}\n" % zlib.crc32(body)


def _point(line: bytes) -> dict[str, Any]:
    """{"samples", "time_ms", "values"} of one line; an error of Python's for another."""
    point = parse_object(line, "a point")
    crc = point.pop("crc32", None)  # lines of earlier versions have none
    if crc is not None and crc != zlib.crc32(line.rpartition(_CRC)[0]):
        raise ValueError("not what was written")
    samples, time_ms, values = point.pop("samples"), point.pop("time_ms"), point.pop("values")
    if point:
        raise ValueError("unknown keys")
    numbers = {str(name): math.nan if value is None else float(value) for name, value in values.items()}
    return {"samples": int(samples), "time_ms": int(time_ms), "values": numbers}


class MetricsLog:
    """The writer of a log. A (name, samples) pair is written once, also when a kill makes steps run twice."""

    def __init__(self, run: RunDir, flush_s: float = 10.0, name: str = POINTS) -> None:
        self._run, self._name, self._flush_s = run, name, flush_s
        self._local = storage.is_local(run.uri)
        self._number = max(0, _num_chunks(run, name) - 1)
        self.points: list[dict[str, Any]] = []
        last = b""
        for number in range(_num_chunks(run, name)):
            place = chunk(run, name, number)
            last = storage.read_bytes(place)
            whole = last[: last.rfind(b"\n") + 1]
            if whole != last:
                storage.put(place, whole)
            last = whole
            self.points += parse_metrics(whole, place)
        self._written = {(name, point["samples"]) for point in self.points for name in point["values"]}
        self._unsent: dict[int, bytes] = {}
        """what the store lacks: number of a chunk -> all of it"""
        self._open = last
        self._lock, self._sending, self._over = threading.Lock(), threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None

    def append(self, samples_seen: int, values: dict[str, float]) -> dict[str, float]:
        """Add one point; return the values that were new. Never waits for a store."""
        fresh = {k: float(v) for k, v in values.items() if (k, samples_seen) not in self._written}
        if not fresh:
            return {}
        self._written.update((name, samples_seen) for name in fresh)
        point = {"samples": samples_seen, "time_ms": int(time.time() * 1000), "values": fresh}
        self.points.append(point)
        line = _line(point)
        if self._local:
            place = Path(self._run.path(self._name))
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("ab") as file:
                file.write(line)
        else:
            self._keep(line)
        return fresh

    def _keep(self, line: bytes) -> None:
        with self._lock:
            if len(self._open) >= CHUNK_BYTES:
                self._number, self._open = self._number + 1, b""
            self._open += line
            self._unsent[self._number] = self._open
        if self._thread is None:
            self._thread = threading.Thread(target=self._send_now_and_then, name="curves", daemon=True)
            self._thread.start()

    def _send_now_and_then(self) -> None:
        while not self._over.wait(self._flush_s):
            try:
                self.flush()
            except DataError as error:  # a store that does not answer now may answer next time
                log.info("the curves are not in %s yet: %s", self._run.uri, error)

    def flush(self) -> None:
        """Make every point visible to readers (needed only for object stores). Raises StoreError."""
        with self._sending:
            while True:
                with self._lock:
                    if not self._unsent:
                        return
                    number = min(self._unsent)
                    data = self._unsent[number]
                storage.put(chunk(self._run, self._name, number), data)
                with self._lock:
                    if self._unsent[number] is data:  # else it has grown meanwhile
                        del self._unsent[number]

    def close(self) -> None:
        """The last flush; nothing is sent by itself any more."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.flush()
