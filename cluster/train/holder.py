"""One training at a time in a run directory: a lock on a disk, a heartbeat in an object store.

Two at once would write the same points twice and remove each other's checkpoints. A lock ends with its process, however
that ends. A store has no locks: whoever trains writes `heartbeat.json` again and again, and one that changes while it
is watched belongs to a living process, whatever the clocks say.
"""

import contextlib
import fcntl
import itertools
import json
import logging
import os
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from focusvit.runs.run_dir import RunDir
from pipeline.errors import UsageError
from pipeline.io import storage

from .background import repeated

log = logging.getLogger(__name__)
BEAT_S = 5.0
PATIENCE_S = 20.0
"""how long a heartbeat is watched before it counts as left behind"""


@contextlib.contextmanager
def held(run: RunDir) -> Iterator[None]:
    """Inside, `run` is this process's. Raises `UsageError` with process and host of another one that trains there."""
    with _locked(run) if storage.is_local(run.uri) else _beating(run):
        yield


def _me() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": int(time.time())}


def _refused(run: RunDir, other: dict[str, Any]) -> UsageError:
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(int(other.get("since", 0))))
    return UsageError(
        f"process {other.get('pid', '?')} on host {other.get('host', '?')} trains in {run.uri} since {when}. "
        "Wait for it, stop it (`touch RUN/stop` makes it save and end), or take another --run-dir."
    )


@contextlib.contextmanager
def _locked(run: RunDir) -> Iterator[None]:
    place = Path(run.path("lock"))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        opened = place.open("a+")  # not inherited by the processes that this one starts
    except OSError as error:
        raise UsageError(
            f"the run directory {run.uri} cannot be written: {error.strerror}. Correct the access, or take another "
            "--run-dir."
        ) from None
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _refused(run, _read(place)) from None
        except OSError as error:  # a disk without locks
            log.warning("%s takes no locks (%s): do not start a second training in it", run.uri, error)
        file.truncate(0)
        file.write(json.dumps(_me()))
        file.flush()
        yield


def _read(place: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(place.read_text()))
    except (OSError, ValueError, TypeError):
        return {}


@contextlib.contextmanager
def _beating(run: RunDir) -> Iterator[None]:
    place, mine, beats = run.path("heartbeat.json"), {**_me(), "id": uuid.uuid4().hex}, itertools.count()
    _wait_until_left(run, place)

    def beat() -> None:
        storage.put_json(place, {**mine, "beat": next(beats)})

    beat()
    if (other := storage.read_json(place))["id"] != mine["id"]:  # another one came in the same moment
        raise _refused(run, other)
    try:
        with repeated(beat, BEAT_S, "heartbeat"):
            yield
    finally:
        storage.remove(place)


def _wait_until_left(run: RunDir, place: str) -> None:
    """Until the heartbeat of another process has not changed for `PATIENCE_S`. UsageError when it does change."""
    try:
        first = storage.read_bytes(place)
    except FileNotFoundError:
        return
    log.warning("%s was left behind, or someone trains in %s: watching it for %g s", place, run.uri, PATIENCE_S)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        time.sleep(min(BEAT_S, PATIENCE_S) / 5)
        try:
            now = storage.read_bytes(place)
        except FileNotFoundError:
            return
        if now != first:
            raise _refused(run, json.loads(now))
