"""`bench train`: the training step beside a plain ViT's, the loop around it, checkpoints, a second rank."""

import sys
from collections.abc import Callable

import torch

from focusvit.runs.provenance import evidence
from pipeline.commandline import parse
from tests.benchmarks.report import Table, save

from . import loop as bench_train_loop
from . import ranks as bench_train_ranks
from .config import BenchTrainConfig


def main(argv: list[str]) -> int:
    """Print the tables and save them under tests/benchmarks/results."""
    config = parse(BenchTrainConfig, argv, prog="python -m tests.benchmarks train")
    sys.stdout.write(
        f"bench train: FocusViT of size {config.size}, 224 px, batch {config.batch}, on {config.device}, "
        f"sections {', '.join(config.sections)}, {config.rounds} rounds\n"
    )
    makers: dict[str, Callable[[], list[Table]]] = {
        "step": lambda: bench_train_loop.step_tables(config),
        "loop": lambda: bench_train_loop.loop_tables(config),
        "checkpoint": lambda: bench_train_loop.checkpoint_tables(config),
        "ranks": lambda: bench_train_ranks.rank_tables(config),
    }
    facts = evidence("python -m tests.benchmarks train " + " ".join(argv), ("torch", "numpy", "mlflow"))
    facts |= {"threads": torch.get_num_threads(), "clock": config.clock}
    tables: list[Table] = []
    for section in config.sections:
        made = makers[section]()
        tables += made
        sys.stdout.write("\n".join(table.markdown() for table in made) + "\n")
        sys.stdout.flush()
        paths = save(config.name, tables, facts)  # after each section: a run that is stopped keeps what it has
    for path in paths:
        sys.stdout.write(f"bench train: wrote {path}\n")
    return 0
