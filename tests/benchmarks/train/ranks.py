"""Two gloo ranks beside two independent processes: what distribution costs on one machine (`bench train`)."""

import multiprocessing
import statistics
import tempfile
import time
from multiprocessing.queues import Queue
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel

from focusvit.model import presets
from tests.benchmarks.report import Table
from tests.benchmarks.train.loop import stepper, stepper_of
from tests.testkit.gloo_ranks import start_group, stop_group

from .config import BenchTrainConfig

_STEPS = 2  # of each kind before the other takes its turn
_WAYS = ("two independent processes", "two gloo ranks (DDP, fixed buckets)", "two gloo ranks (DDP as it comes)")
_Times = list[tuple[float, float]]


def rank_tables(config: BenchTrainConfig) -> list[Table]:
    """Both processes take turns with steps of their own and steps together, each with one thread."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        queue: Queue[list[_Times]] = context.Queue()
        arguments = (str(Path(folder, "store")), config.size, config.batch, config.rounds, queue)
        processes = [context.Process(target=_rank, args=(rank, *arguments)) for rank in range(2)]
        for process in processes:
            process.start()
        results = [queue.get(timeout=3600) for _ in processes]  # Empty when a rank broke
        for process in processes:
            process.join()
    images, rows, first = 2 * _STEPS * config.batch, [], None
    for kind, name in enumerate(_WAYS):
        wall = [max(times) for times in zip(*([w for w, _ in result[kind]] for result in results))]
        cpu = [sum(times) for times in zip(*([c for _, c in result[kind]] for result in results))]
        first = first or (wall, cpu)
        shares = [statistics.median(a / b for a, b in zip(*pair)) for pair in zip(first, (wall, cpu))]
        rates = [images / statistics.median(times) for times in (wall, cpu)]
        rows.append([name, *(f"{rate:.2f}" for rate in rates), *(f"{share:.1%}" for share in shares)])
    return [
        Table(
            title=f"Two ranks on one machine, FocusViT-{config.size}, 224 px, {config.batch} images a rank",
            columns=("way", "images a wall second", "images a CPU second", "share, wall (goal: 90 %)", "share, CPU"),
            rows=rows,
            note=f"One thread a rank; {config.rounds} rounds of {_STEPS} steps each way; wall time of the slower.",
        )
    ]


def _rank(rank: int, store: str, size: str, batch: int, rounds: int, queue: "Queue[list[_Times]]") -> None:
    from focusvit.model.model import FocusViT
    from focusvit.train.session import distributed

    torch.set_num_threads(1)
    start_group(rank, 2, store)
    shape = presets.focusvit(size)
    torch.manual_seed(0)
    ours, theirs = FocusViT(shape).train(), FocusViT(shape).train()
    ways = (
        stepper(shape, batch),
        stepper_of(ours, distributed(ours, torch.device("cpu")), batch, world_size=2),
        stepper_of(theirs, DistributedDataParallel(theirs), batch, world_size=2),
    )
    times: list[_Times] = [[] for _ in ways]
    for turn in range(rounds + 1):
        for way, kept in zip(ways, times):
            torch.distributed.barrier()
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(_STEPS):
                way()
            if turn:  # the first round only warms up
                kept.append((time.perf_counter() - wall, time.process_time() - cpu))
    queue.put(times)
    stop_group()
