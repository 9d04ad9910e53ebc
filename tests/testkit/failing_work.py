"""Shard work that fails in chosen ways, importable by worker processes and Ray workers."""

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.shards.build import ShardTask
from pipeline.shards.task import run_shard


def _count(task: ShardTask, mark: str) -> int:
    """How many times this was reached for this shard, this one included."""
    place = Path(task.out, f"{mark}-{task.shard}")
    times = int(place.read_text()) + 1 if place.exists() else 1
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(str(times))
    return times


def everything_fails(task: ShardTask) -> dict[str, Any]:
    """Shard 0: its worker is killed once, with half a tar written. Shard 1: it ends every worker that does not
    isolate its samples. Shard 2: the store fails, then memory. Shard 3 and later: nothing.
    """
    if task.shard == 0 and _count(task, "died") == 1:
        Path(task.out, f".{task.name}.half.tmp").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    if task.shard == 1 and not task.isolated:
        os.kill(os.getpid(), signal.SIGFPE)
    if task.shard == 2:
        times = _count(task, "passing")
        if times <= 2:
            raise (OSError("503 Slow Down"), MemoryError())[times - 1]
    return {**run_shard(task), "isolated": task.isolated}


def disk_is_full(task: ShardTask) -> dict[str, Any]:
    raise OSError(28, "No space left on device")


def store_is_busy(task: ShardTask) -> dict[str, Any]:
    raise OSError("Reduce your rate.\nRequest ID: 7")


def machine_differs(task: ShardTask) -> dict[str, Any]:
    return run_shard(replace(task, golden="0" * 64))


def tell_process(task: ShardTask) -> dict[str, Any]:
    return {"shard": task.shard, "pid": os.getpid()}
