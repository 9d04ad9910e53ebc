"""Run a function on real gloo ranks, one process each."""

import datetime
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def start_group(rank: int, world_size: int, store_path: str, backend: str = "gloo") -> None:
    """A process group over a file, for one-machine runs without Ray. `store_path`: a new file for each group."""
    import torch.distributed as dist

    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        backend, f"file://{store_path}", rank=rank, world_size=world_size, timeout=datetime.timedelta(seconds=120)
    )


def stop_group() -> None:
    """Leave the process group of `start_group`."""
    import torch.distributed as dist

    dist.destroy_process_group()


def run_ranks(function: Callable[..., Any], world_size: int, folder: Path, *arguments: Any) -> list[Any]:
    """`function(rank, world_size, *arguments)` on each rank inside one process group; the results in rank order."""
    context = multiprocessing.get_context("forkserver")  # the ranks of all tests: one process loads torch for them
    context.set_forkserver_preload(["focusvit.train.loop"])
    queue = context.Queue()
    store = str(folder / f"gloo-{world_size}-{function.__name__}")
    processes = [
        context.Process(target=_one, args=(sys.path, queue, function, rank, world_size, store, arguments))
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    results: dict[int, Any] = {}
    try:
        for _ in processes:
            rank, result, error = queue.get(timeout=200)
            if error:
                raise AssertionError(f"rank {rank} of {world_size}:\n{error}")
            results[rank] = result
    finally:
        for process in processes:
            process.join(5)
            process.kill()
    return [results[rank] for rank in range(world_size)]


def _one(path: list[str], queue: Any, function: Any, rank: int, world_size: int, store: str, arguments: Any) -> None:
    try:
        import torch

        torch.set_num_threads(1)
        start_group(rank, world_size, store)
        queue.put((rank, function(rank, world_size, *arguments), None))
        stop_group()
    except BaseException:
        queue.put((rank, None, traceback.format_exc()))
