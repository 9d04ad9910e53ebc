"""Where shards are built: processes of this machine, or tasks of a Ray cluster. Scheduling only, no work of its own.

Both keep the same promises. A shard whose worker dies is tried again, then built with each sample in a child process.
An OSError (a disk, a store) or a MemoryError is tried again a few times. Any other exception ends the run.
"""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from pipeline.errors import DataError, UsageError, first_line, last_line
from pipeline.io.machine import usable_cpus
from pipeline.options import PreprocessConfig, Workers

from . import sample
from .build import ShardSpec
from .isolate import Child, ChildEndedError
from .worker import run_shard

Work = Callable[[ShardSpec], dict[str, Any]]
log = logging.getLogger(__name__)
_TRIES = 3
_PASSING = (OSError, MemoryError)  # of this moment or place, so worth another try
_OBJECT_STORE_BYTES = 100 * 2**20  # only specs pass through it
_WINDOW_PER_CPU = 4  # shards submitted ahead: workers never wait, the driver never holds all


class _Attempts:
    """Decides what happens after a failure; shared by both executors, so that they agree."""

    def __init__(self) -> None:
        self._failed: dict[int, int] = {}

    def after(self, spec: ShardSpec, reason: str, *, crashed: bool) -> ShardSpec:
        """What to run next. Raises DataError after the last try."""
        count = self._failed[spec.shard] = self._failed.get(spec.shard, 0) + 1
        if count >= _TRIES:
            raise DataError(
                f"the shard {spec.name} failed {count} times; the last time: {reason}. The shards before it are "
                f"finished and kept: correct the cause (space, memory, access), then run the same command again."
            )
        log.warning(
            "%s is tried again (%d of %d): %s", spec.name, count + 1, _TRIES, reason,
            extra={"event": "shard tried again", "facts": {"shard": spec.name, "tries": count + 1, "reason": reason}},
        )  # fmt: skip
        # One death may be an accident (out of memory, a lost node): the second one is looked at sample by sample.
        return replace(spec, isolated=crashed and count == _TRIES - 1) if crashed else spec


def run_shards(
    where: PreprocessConfig | Workers, specs: Sequence[ShardSpec], work: Work = run_shard
) -> Iterator[dict[str, Any]]:
    """Results as they finish, from processes of this machine when `where.local`, else from Ray."""
    if where.local:
        return run_local(specs, workers=where.workers, work=work)
    return run_ray(specs, address=where.ray_address, workers=where.workers, work=work)


def run_local(
    specs: Sequence[ShardSpec], *, workers: int | None = None, work: Work = run_shard
) -> Iterator[dict[str, Any]]:
    """Results as they finish, from `workers` processes (None: one for each CPU). 0 builds them here, one by one,
    for a debugger.
    """
    workers = usable_cpus() if workers is None else workers
    if workers == 0:
        for spec in specs:
            yield work(spec)
        return
    waiting, attempts = deque(specs), _Attempts()
    idle = [Child(work) for _ in range(min(workers, len(specs)))]
    busy: dict[Any, tuple[Child, ShardSpec]] = {}
    try:
        while waiting or busy:
            while waiting and idle:
                child, spec = idle.pop(), waiting.popleft()
                try:
                    child.give(spec)
                except ChildEndedError:  # killed while it waited: no shard's fault, so it costs no try
                    child.stop()
                    child = Child(work)
                    child.give(spec)
                busy[child.pipe] = child, spec
            for pipe in wait(list(busy)):
                child, spec = busy.pop(pipe)
                idle.append(child)
                try:
                    result = child.take()
                except ChildEndedError as end:
                    child.stop()
                    idle[-1] = Child(work)
                    waiting.append(attempts.after(spec, f"its worker ended with {end}", crashed=True))
                except _PASSING as error:
                    waiting.append(attempts.after(spec, first_line(error), crashed=False))
                else:
                    yield result
    finally:
        for child in [*idle, *(child for child, _ in busy.values())]:
            child.stop()


def run_ray(
    specs: Sequence[ShardSpec], *, address: str | None = None, workers: int | None = None, work: Work = run_shard
) -> Iterator[dict[str, Any]]:
    """Results as they finish, from one Ray task for each shard. Ray starts inside this process unless there is an
    `address` (or RAY_ADDRESS, as inside a submitted job). `workers` bounds the tasks that run at a time; None: as many
    as there are CPUs.
    """
    import ray

    ours = not ray.is_initialized()
    if ours:
        address = address or os.environ.get("RAY_ADDRESS")
        _start_ray(address, workers)
    try:
        _check_workers()
        # A Ray of our own has `workers` CPUs and keeps the bound itself, so tasks may wait at its door.
        yield from _drive_ray(specs, None if ours and not address else workers, work)
    finally:
        if ours:
            ray.shutdown()


def _drive_ray(specs: Sequence[ShardSpec], workers: int | None, work: Work) -> Iterator[dict[str, Any]]:
    import ray
    from ray.exceptions import NodeDiedError, OutOfMemoryError, RayError, RayTaskError, WorkerCrashedError

    # Retries are ours: Ray would run a task that kills its worker again without telling which it was.
    remote = ray.remote(num_cpus=1, max_retries=0, scheduling_strategy="SPREAD")(work)
    waiting, attempts = deque(specs), _Attempts()
    running: dict[Any, ShardSpec] = {}
    while waiting or running:
        window = workers or max(1, int(ray.cluster_resources().get("CPU", 1))) * _WINDOW_PER_CPU
        while waiting and len(running) < window:
            spec = waiting.popleft()
            running[remote.remote(spec)] = spec
        done, _ = ray.wait(list(running), num_returns=1)
        spec = running.pop(done[0])
        try:
            yield ray.get(done[0])
        except (WorkerCrashedError, OutOfMemoryError, NodeDiedError) as error:
            reason = f"its Ray worker died ({first_line(error)})"
            waiting.append(attempts.after(spec, reason, crashed=True))
        except RayTaskError as error:
            cause = error.cause
            if not isinstance(cause, _PASSING):
                raise (cause if isinstance(cause, DataError | UsageError) else error) from None
            waiting.append(attempts.after(spec, first_line(cause), crashed=False))
        except RayError as error:  # a result lost with its node, a task that found no place: many kinds, none ours
            waiting.append(attempts.after(spec, first_line(error), crashed=False))


def _start_ray(address: str | None, workers: int | None) -> None:
    import ray

    ours: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    try:  # "local": never join a cluster that happens to run on this machine.
        ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **({} if address else ours))
    except Exception as error:  # Ray raises many kinds: no such cluster, no token, other versions
        if not address:
            raise
        raise UsageError(
            f"cannot join the Ray cluster at '{address}': {first_line(error)}. Check the address and that the "
            f"cluster runs this Python and Ray; leave out --ray-address to run on this machine."
        ) from None


def _check_workers() -> None:
    """Workers must import this code, not another package with the same generic name."""
    import ray

    try:
        found, version = ray.get(ray.remote(num_cpus=1)(_identity).remote())
    except Exception as error:
        raise UsageError(
            f"Ray workers cannot import this code ({last_line(error)}). Install the checkout on "
            f"every node, or send it with the job: `focusvit submit` does."
        ) from None
    if version != sample.FORMAT_VERSION or Path(found).parts[-3:] != Path(sample.__file__).parts[-3:]:
        raise UsageError(
            f"Ray workers import another 'pipeline' (from {found}, format version {version}; here it is "
            f"{sample.__file__}, version {sample.FORMAT_VERSION}). Install this checkout on every node."
        )


def _identity() -> tuple[str, int]:
    return sample.__file__, sample.FORMAT_VERSION
