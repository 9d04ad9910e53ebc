"""What the driver tells of workers that do not come and of workers that fail. Ray tells of neither where people look.

GPUs or CPUs that exist may be busy: Ray waits for them in silence. Workers that failed it starts again from the latest
checkpoint, and says so in the log of its controller only, a process that may run on another node. Like everything else
the two talk through the run directory: `failures/<time in ns>.json`. Only `on_ray` imports this file, since it imports
ray.train.
"""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray.train import UserCallback
from ray.util import placement_group_table

from cluster.jobs.progress_lines import WORKERS_FAILED
from focusvit.runs.run_dir import RunDir
from pipeline.errors import last_line
from pipeline.io import storage

from .background import repeated
from .placement import Placement
from .worker import STARTED

log = logging.getLogger(__name__)
SAY_AFTER_S = 20.0
SAY_EVERY_S = 120.0
_FOLDER = "failures"


@contextmanager
def told_waiting(run: RunDir, found: Placement) -> Iterator[None]:
    """Inside, the user learns that the workers have started, or what they wait for and who has it."""
    began, say_at = time.monotonic(), SAY_AFTER_S

    def look() -> bool:
        nonlocal say_at
        if storage.exists(run.path(STARTED)):
            said = storage.read_json(run.path(STARTED))
            ending = "" if said["world_size"] == 1 else "s"
            sys.stderr.write(f"training  {said['world_size']} worker{ending} on {said['device']}\n")
            return True
        if (waited := time.monotonic() - began) >= say_at:
            sys.stderr.write(_waiting(found, waited) + "\n")
            say_at += SAY_EVERY_S
        return False

    with repeated(look, 0.5 if storage.is_local(run.uri) else 2.0, "waiting", patience_s=5):
        yield


def _waiting(found: Placement, waited_s: float) -> str:
    groups, my_job = placement_group_table(), ray.get_runtime_context().get_job_id()
    if any(group["state"] == "CREATED" and _job_of(group) == my_job for group in groups.values()):
        return f"starting  {waited_s:.0f} s: the workers have their places, their processes load"
    kind = "GPU" if found.device == "gpu" else "CPU"
    all_of, free = ray.cluster_resources().get(kind, 0), ray.available_resources().get(kind, 0)
    wanted = found.low * (1 if kind == "GPU" else found.cpus)
    line = f"waiting   {waited_s:.0f} s for {wanted:g} {kind}s: {free:g} of {all_of:g} are free"
    others = holders(kind, groups, my_job, _jobs())
    return f"{line}; in use by {', '.join(others)}" if others and free < wanted else line


def _job_of(group: dict[str, Any]) -> str:
    return group["placement_group_id"][-8:]  # the id of a group ends with that of the job that made it


def holders(kind: str, groups: dict[str, Any], my_job: str, jobs: dict[str, str]) -> list[str]:
    """'2 by job 04000000 (python train.py)': what other jobs hold of `kind` in placement groups, the most first."""
    held: dict[str, float] = {}
    for group in groups.values():
        job = _job_of(group)
        if group["state"] == "CREATED" and job != my_job:
            held[job] = held.get(job, 0) + sum(bundle.get(kind, 0) for bundle in group["bundles"].values())
    most_first = sorted(((count, job) for job, count in held.items() if count), reverse=True)
    return [f"job {job} ({jobs.get(job, 'unknown command')}): {count:g}" for count, job in most_first]


def _jobs() -> dict[str, str]:
    """What each job of the cluster runs, and where."""
    from ray._private.worker import global_worker

    found = global_worker.gcs_client.get_all_job_info()  # type: ignore[attr-defined]
    return {key.hex(): f"{job.entrypoint[:80]} on {job.driver_address.ip_address}" for key, job in found.items()}


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
    run = RunDir(run_dir)
    told = set(storage.list_names(run.path(_FOLDER)))
    earlier = len(told)

    def tell_new() -> None:
        for name in storage.list_names(run.path(_FOLDER)):
            if name in told:
                continue
            failure = storage.read_json(run.path(_FOLDER, name))
            told.add(name)
            if storage.exists(run.path("error.json")):  # it is no accident, and the driver raises it
                continue
            log.warning(
                "%s%d (they are started again at most %d times), seen at rank %d: %s",
                WORKERS_FAILED, len(told) - earlier, max_failures, failure["rank"], failure["reason"],
                extra={"event": "training workers failed", "facts": {"failures": len(told) - earlier, **failure}},
            )  # fmt: skip

    try:
        with repeated(tell_new, every_s if storage.is_local(run_dir) else 5 * every_s, "failures"):
            yield
    finally:
        with suppress(Exception):  # as in the thread: it must not hide how the training ended
            tell_new()
