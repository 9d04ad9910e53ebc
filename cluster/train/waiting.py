"""Workers that do not come: GPUs or CPUs that exist are busy. Ray waits in silence; the user is told who has them.

Only `on_ray` imports this file, since it imports ray.
"""

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.util import placement_group_table

from focusvit.runs.run_dir import RunDir
from pipeline.io import storage

from .placement import Placement
from .worker import STARTED

log = logging.getLogger(__name__)
SAY_AFTER_S = 20.0
SAY_EVERY_S = 120.0


@contextmanager
def told_waiting(run: RunDir, found: Placement) -> Iterator[None]:
    """Inside, the user learns that the workers have started, or what they wait for and who has it."""
    over = threading.Event()

    def watch() -> None:
        waited, say_at = 0.0, SAY_AFTER_S
        while not over.wait(0.5 if waited < 60 else 5):
            waited += 0.5 if waited < 60 else 5
            try:
                if storage.exists(run.path(STARTED)):
                    said = storage.read_json(run.path(STARTED))
                    ending = "" if said["world_size"] == 1 else "s"
                    sys.stderr.write(f"training  {said['world_size']} worker{ending} on {said['device']}\n")
                    return
                if waited >= say_at:
                    sys.stderr.write(_waiting(found, waited) + "\n")
                    say_at += SAY_EVERY_S
            except Exception as error:  # Ray or a store that does not answer now may answer next time
                log.info("cannot look for the workers: %s", error)

    thread = threading.Thread(target=watch, name="waiting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(5)


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
