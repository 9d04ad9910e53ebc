"""`focusvit bench train`: the training step beside a plain ViT's, the loop around it, checkpoints, a second rank."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from pipeline.bench_report import Table, evidence, save
from pipeline.commandline import parse

from . import bench_train_loop, bench_train_ranks

SECTIONS = ("step", "loop", "checkpoint", "ranks")


@dataclass(frozen=True, kw_only=True)
class BenchTrainConfig:
    """Speed of the training step and of the loop around it, with random weights."""

    sections: tuple[str, ...] = SECTIONS
    """what to measure: step, loop, checkpoint, ranks"""
    size: Literal["tiny", "small", "base"] = "small"
    """size of FocusViT and of the plain ViT beside it"""
    batch: int = 32
    """images of a step; in `ranks` of each rank"""
    rounds: int = 5
    """how often what is compared takes turns; medians over rounds are reported"""
    steps: int = 12
    """steps of the real loop"""
    clock: Literal["wall", "cpu"] = "wall"
    """cpu counts the processor's seconds of all threads: for a machine that others use at the same time"""
    device: str = "cpu"
    """cpu or cuda; on a GPU only `step` is measured"""
    name: str = "train"
    """results go to tests/benchmarks/results/NAME.json and .md"""

    def __post_init__(self) -> None:
        wrong = [section for section in self.sections if section not in SECTIONS]
        if wrong:
            raise ValueError(f"--sections has '{wrong[0]}'; choose from {', '.join(SECTIONS)}")
        if self.device != "cpu" and (self.clock == "cpu" or self.sections != ("step",)):
            raise ValueError(f"on the device {self.device} only --sections step with --clock wall is measured")
        if min(self.batch, self.rounds, self.steps) < 1:
            raise ValueError("--batch, --rounds and --steps must be at least 1")


def main(argv: list[str]) -> int:
    """Print the tables and save them under tests/benchmarks/results."""
    config = parse(BenchTrainConfig, argv, prog="focusvit bench train")
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
    facts = evidence("focusvit bench train " + " ".join(argv), ("torch", "numpy", "mlflow"))
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
