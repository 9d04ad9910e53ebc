"""`bench train`: the training step beside a plain ViT's, the loop around it, checkpoints, a second rank."""

from collections.abc import Callable

import torch

from tests.benchmarks.record import begin
from tests.benchmarks.report import Table

from . import loop as bench_train_loop
from . import ranks as bench_train_ranks
from .config import BenchTrainConfig


def main(argv: list[str]) -> int:
    """Print the tables and save them under tests/benchmarks/results."""
    config, record = begin("train", BenchTrainConfig, argv, ("torch", "numpy", "mlflow"))
    record.say(
        f"FocusViT of size {config.size}, 224 px, batch {config.batch}, on {config.device}, "
        f"sections {', '.join(config.sections)}, {config.rounds} rounds"
    )
    makers: dict[str, Callable[[], list[Table]]] = {
        "step": lambda: bench_train_loop.step_tables(config),
        "loop": lambda: bench_train_loop.loop_tables(config),
        "checkpoint": lambda: bench_train_loop.checkpoint_tables(config),
        "ranks": lambda: bench_train_ranks.rank_tables(config),
    }
    record.facts |= {"threads": torch.get_num_threads(), "clock": config.clock}
    for section in config.sections:
        record.add(*makers[section]())
    return record.end()
