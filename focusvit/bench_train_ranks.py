"""Two gloo ranks beside two independent processes: what distribution costs on one machine (`focusvit bench train`)."""

import multiprocessing
import statistics
import tempfile
import time
from multiprocessing.queues import Queue
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pipeline.bench_report import Table

from . import presets, ranks
from .bench_train_loop import stepper, stepper_of

if TYPE_CHECKING:
    from .bench_train import BenchTrainConfig

_STEPS = 2  # of each kind before the other takes its turn
_Times = list[tuple[float, float]]


def rank_tables(config: "BenchTrainConfig") -> list[Table]:
    """Both processes alternate between steps of their own and steps together, each with one thread."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        queue: Queue[tuple[_Times, _Times]] = context.Queue()
        arguments = (str(Path(folder, "store")), config.size, config.batch, config.rounds, queue)
        processes = [context.Process(target=_rank, args=(rank, *arguments)) for rank in range(2)]
        for process in processes:
            process.start()
        results = [queue.get() for _ in processes]
        for process in processes:
            process.join()
    rows, rates = [], {}
    for kind, name in enumerate(("two independent processes", "two gloo ranks (DDP)")):
        wall = [max(times) for times in zip(*([w for w, _ in result[kind]] for result in results))]
        cpu = [sum(times) for times in zip(*([c for _, c in result[kind]] for result in results))]
        rates[name] = wall, cpu
        images = 2 * _STEPS * config.batch
        rows.append([name, f"{images / statistics.median(wall):.2f}", f"{images / statistics.median(cpu):.2f}"])
    alone, together = rates.values()
    ratios = [statistics.median(a / b for a, b in zip(alone[i], together[i])) for i in (0, 1)]
    rows.append(["together against independent (goal: at least 90 %)", *(f"{ratio:.1%}" for ratio in ratios)])
    return [
        Table(
            title=f"Two ranks on one machine, FocusViT-{config.size}, 224 px, {config.batch} images a rank",
            columns=("way", "images a wall second", "images a CPU second"),
            rows=rows,
            note=f"One thread a rank; {config.rounds} rounds of {_STEPS} steps each way; wall time of the slower.",
        )
    ]


def _rank(rank: int, store: str, size: str, batch: int, rounds: int, queue: "Queue[tuple[_Times, _Times]]") -> None:
    from .model import FocusViT
    from .session import distributed

    torch.set_num_threads(1)
    ranks.start_group(rank, 2, store)
    shape = presets.focusvit(size)
    torch.manual_seed(0)
    model = FocusViT(shape).train()
    ways = stepper(shape, batch), stepper_of(model, distributed(model, torch.device("cpu")), batch, world_size=2)
    times: tuple[_Times, _Times] = ([], [])
    for turn in range(rounds + 1):
        for way, kept in zip(ways, times):
            ranks.barrier()
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(_STEPS):
                way()
            if turn:  # the first round only warms up
                kept.append((time.perf_counter() - wall, time.process_time() - cpu))
    queue.put(times)
    ranks.stop_group()
