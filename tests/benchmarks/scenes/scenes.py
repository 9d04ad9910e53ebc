"""`bench scenes`: street scenes learned from scratch, by FocusViT and by other ways to spend as many tokens."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch

from focusvit.model.cost import time_calls
from focusvit.model.model import FocusViT
from pipeline.errors import UsageError
from tests.benchmarks.hosts.dense import COLUMNS, Scores, Split, by_drive
from tests.benchmarks.hosts.images import Sample, frames
from tests.benchmarks.record import RecordConfig, begin, data_folder
from tests.benchmarks.report import Table
from tests.benchmarks.scenes.learn import Learning, frame_of, learned
from tests.benchmarks.scenes.picture import draw
from tests.benchmarks.scenes.rows import Row, features, read_too, rows, view

UNSEEN, WHOLE = "each drive of train once as the test", "train to val"


@dataclass(frozen=True, kw_only=True)
class BenchScenesConfig(RecordConfig):
    """FocusViT, a plain ViT, a uniform grid, fewer pixels and larger patches, from scratch on CamVid."""

    height: int = 192
    width_px: int = 256
    width: int = 128
    """of the tokens"""
    epochs: int = 60
    rates: tuple[float, ...] = (1e-3, 3e-3)
    """learning rates that each row chooses from, on held-out frames of those that it learns from"""
    rate_epochs: int = 10
    """of trying one"""
    seed: int = 0
    frames: int = 1000
    """of each split, at most, evenly spread"""
    only: tuple[int, ...] = ()
    """numbers of rows, from 0; () = all"""
    rounds: int = 5
    """of timing"""
    batch: int = 8

    def __post_init__(self) -> None:
        if self.height % 32 or self.width_px % 32 or min(self.height, self.width_px) < 32:
            raise ValueError(f"height {self.height} and width_px {self.width_px} must be multiples of 32")
        if self.width % 32 or min(self.width, self.epochs, self.frames, self.rounds, self.batch) < 1:
            raise ValueError("width must be a multiple of 32; epochs, frames, rounds and batch at least 1")
        if self.height * self.width_px > 256 * 256:
            raise ValueError(
                f"{self.height}x{self.width_px} px have more than 1,024 patches: one superpixel for four of them "
                "would be more than the 256 of a map"
            )
        if not self.rates or min(self.rates) <= 0 or self.rate_epochs < 1:
            raise ValueError("rates must hold positive numbers, rate_epochs must be at least 1")


def main(argv: list[str]) -> int:
    """Print the tables and save them under tests/benchmarks/results, again after each row."""
    config, record = begin("scenes", BenchScenesConfig, argv, ("torch", "fast-slic", "numpy"))
    size = (config.height, config.width_px)
    every = rows(size, config.width)
    if missing := set(config.only) - set(range(len(every))):
        told = ", ".join(f"{number} {row.name}" for number, row in enumerate(every))
        raise UsageError(f"--only {min(missing)}: no row has that number. They are {told}.")
    chosen = [every[number] for number in config.only] or every
    count = every[0].tokens
    train, val = (_some(frames(Path(data_folder("camvid")) / split), config.frames) for split in ("train", "val"))
    samples = [*train, *val]
    questions = {
        UNSEEN: by_drive(train),
        WHOLE: [Split(WHOLE, range(len(train)), range(len(train), len(samples)))],
    }
    record.facts |= {"threads": torch.get_num_threads(), "superpixels": count}
    shown = {row.name: row for main in chosen for row in (main, read_too(main)) if row is not None}
    costs = speeds(list(shown.values()), train[: config.batch], count, config.rounds)
    learning = Learning(
        epochs=config.epochs, batch=config.batch, rates=config.rates, rate_epochs=config.rate_epochs, seed=config.seed
    )
    scores: dict[str, dict[str, Scores]] = {name: {} for name in questions}
    chose: dict[str, dict[str, str]] = {name: {} for name in questions}
    for row in chosen:
        others = [other] if (other := read_too(row)) else []
        for name, splits in questions.items():
            found, rates = learned(row, others, samples, splits, count, learning)
            scores[name] |= {one.name: each for one, each in zip((row, *others), found)}
            chose[name] |= {one.name: ", ".join(f"{rate:g}" for rate in rates) for one in (row, *others)}
        record.tables = [table(name, shown, scores[name], chose[name], costs, learning, size) for name in questions]
        for each in record.tables:
            record.say(f"{each.title}: {', '.join(map(str, each.rows[-1]))}")
        record.save()
    draw(record.tables, record.path(".jpg"))
    return record.end()


def table(
    question: str, shown: dict[str, Row], scores: dict[str, Scores], rates: dict[str, str],
    costs: dict[str, tuple[float, float]],
    learning: Learning, size: tuple[int, int],
) -> Table:  # fmt: skip
    first = next(iter(scores.values()))
    lines = [
        [name, shown[name].tokens, rates[name], *found.cells(first), f"{costs[name][0]:.1f}", f"{costs[name][1]:.2f}x"]
        for name, found in scores.items()
    ]
    return Table(
        title=f"CamVid from scratch, {question}, {size[0]}x{size[1]} px",
        columns=["row", "tokens", "learning rate", *COLUMNS, "CPU ms a frame", "speed"],
        rows=lines,
        note=learning.note
        + "mIoU at full size over all test frames; differences with their 95 % interval (paired bootstrap over "
        "frames); small things: pole, sign, pedestrian, bicyclist. Scores of patches and cells are enlarged "
        "bilinearly, those of superpixels painted. CPU time of resizing, superpixels (fast-slic), forward and means "
        "over superpixels in float32, all rows in turns; the head, enlarging and painting are left out. Speed is the "
        "median of paired ratios to the first row.",
    )


@torch.inference_mode()
def speeds(chosen: Sequence[Row], samples: Sequence[Sample], count: int, rounds: int) -> dict[str, tuple[float, float]]:
    """(CPU ms a frame, speed relative to the first row) by name; superpixels are made in every call."""
    calls: dict[str, Callable[[], object]] = {}
    for row in chosen:
        calls[row.name] = partial(_forward, FocusViT(row.model).eval(), row, samples, count)
    seconds = time_calls(calls, rounds, clock=time.process_time)
    first = seconds[chosen[0].name]
    return {
        name: (median(spent) / len(samples) * 1e3, median(a / b for a, b in zip(first, spent)))
        for name, spent in seconds.items()
    }


def _forward(model: FocusViT, row: Row, samples: Sequence[Sample], count: int) -> None:
    features(model, row, [view(row, frame_of(sample), count) for sample in samples], count)


def _some(found: list[Sample], most: int) -> list[Sample]:
    step = max(1, -(-len(found) // most))
    return found[::step]
