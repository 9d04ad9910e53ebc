"""Shard work that fails in chosen ways, importable by worker processes and Ray workers."""

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.shards.build import ShardSpec
from pipeline.shards.worker import run_shard


def _count(spec: ShardSpec, mark: str) -> int:
    """How many times this was reached for this shard, this one included."""
    place = Path(spec.out, f"{mark}-{spec.shard}")
    times = int(place.read_text()) + 1 if place.exists() else 1
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(str(times))
    return times


def everything_fails(spec: ShardSpec) -> dict[str, Any]:
    """Shard 0: its worker is killed once, with half a tar written. Shard 1: it ends every worker that does not
    isolate its samples. Shard 2: the store fails, then memory. Shard 3 and later: nothing.
    """
    if spec.shard == 0 and _count(spec, "died") == 1:
        Path(spec.out, f".{spec.name}.half.tmp").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    if spec.shard == 1 and not spec.isolated:
        os.kill(os.getpid(), signal.SIGFPE)
    if spec.shard == 2:
        times = _count(spec, "passing")
        if times <= 2:
            raise (OSError("503 Slow Down"), MemoryError())[times - 1]
    return {**run_shard(spec), "isolated": spec.isolated}


def disk_is_full(spec: ShardSpec) -> dict[str, Any]:
    raise OSError(28, "No space left on device")


def store_is_busy(spec: ShardSpec) -> dict[str, Any]:
    raise OSError("Reduce your rate.\nRequest ID: 7")


def machine_differs(spec: ShardSpec) -> dict[str, Any]:
    return run_shard(replace(spec, golden="0" * 64))


def tell_process(spec: ShardSpec) -> dict[str, Any]:
    return {"shard": spec.shard, "pid": os.getpid()}
