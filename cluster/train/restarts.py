"""Failures of training workers: Ray's controller sees them, the driver tells people and machines.

Ray starts the workers again from the latest checkpoint and says so in the log of its controller only, a process that
may run on another node. Like everything else they talk through the run directory: `failures/<time in ns>.json`.
Only `train_on_ray` imports this file, since it imports ray.train.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.train import UserCallback

from cluster.jobs.progress_lines import WORKERS_FAILED
from focusvit.runs.run_dir import RunDir
from pipeline.errors import last_line
from pipeline.io import storage

log = logging.getLogger(__name__)
_FOLDER = "failures"


class NoteFailures(UserCallback):
    """Ray's controller calls it: it writes down each failure of the workers."""

    def __init__(self, run_dir: str) -> None:
        self._run = RunDir(run_dir)

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        rank, error = _cause(worker_exceptions)
        try:
            place = self._run.path(_FOLDER, f"{time.time_ns():020d}.json")
            storage.put_json(place, {"rank": rank, "reason": last_line(error)})
        except Exception:  # an error here would end the training
            log.exception("a failure of the workers could not be written down")


def _cause(errors: dict[int, Exception]) -> tuple[int, Exception]:
    """A worker that died before one that raised: the others lose their connection to it and raise too, often first.
    Then nobody has told of the dead one yet, and the reason is theirs."""
    died = [rank for rank, error in errors.items() if hasattr(error, "health_check_failure")]
    rank = min(died or errors)
    return rank, errors[rank]


@contextmanager
def told_failures(run_dir: str, max_failures: int, every_s: float = 1.0) -> Iterator[None]:
    """Inside, each failure of the workers is a warning of one line, which `focusvit jobs status` counts, and a count
    for Ray's metrics. Failures of earlier starts of the run are not told again."""
    run, over = RunDir(run_dir), threading.Event()
    told = set(storage.list_names(run.path(_FOLDER)))
    earlier = len(told)

    def tell_new() -> None:
        try:
            for name in storage.list_names(run.path(_FOLDER)):
                if name in told:
                    continue
                failure = storage.read_json(run.path(_FOLDER, name))
                told.add(name)
                if not storage.exists(run.path("error.json")):  # else it is no accident, and the driver raises it
                    _tell(len(told) - earlier, max_failures, failure)
        except Exception as error:  # a store that does not answer now may answer next time
            log.info("cannot look for failures of the workers: %s", error)

    def watch() -> None:
        while not over.wait(every_s if storage.is_local(run_dir) else 5 * every_s):
            tell_new()

    thread = threading.Thread(target=watch, name="failures", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        tell_new()


def _tell(number: int, max_failures: int, failure: dict[str, Any]) -> None:
    log.warning(
        "%s%d (they are started again at most %d times), seen at rank %d: %s",
        WORKERS_FAILED, number, max_failures, failure["rank"], failure["reason"],
        extra={"event": "training workers failed", "facts": {"failures": number, **failure}},
    )  # fmt: skip
