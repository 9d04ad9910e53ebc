"""Accuracy rows of the study from carried images: one recipe for every row, the product's loop, several seeds.

A training of so small a model keeps a GPU busy for a tenth of its time, so many run at once, a process each.
"""

import multiprocessing
import os
import statistics
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from focusvit.model.config import FocusViTConfig
from focusvit.runs.metrics_log import read_points
from focusvit.runs.run_dir import RunDir
from focusvit.train.optim import OptimConfig
from tests.benchmarks.gpu.arrays import drawn, read, trained
from tests.benchmarks.gpu.plan import Plan
from tests.benchmarks.report import Table
from tests.benchmarks.study.matrix import SETS, core_rows

BATCH, SEEDS, POINTS = 512, 3, 25
MOST_AT_ONCE = 12
LOOK_S = 2.0


@dataclass(frozen=True)
class Training:
    """One row of one set with one seed."""

    set_name: str
    row: str
    seed: int
    folder: Path
    """of its curve, and of its trace when it fails"""

    def epochs(self, plan: Plan) -> float:
        return 1.0 if plan.toy else SETS[self.set_name].epochs

    def reached(self) -> tuple[int, float]:
        """(samples seen, top-1) at its last scored point; (0, 0.0) before the first."""
        points = read_points(RunDir(str(self.folder))) if self.folder.is_dir() else []
        scored = [(point["samples"], point["values"]["val/top1"]) for point in points if "val/top1" in point["values"]]
        return max(scored, default=(0, 0.0))


def tables(plan: Plan) -> Iterator[Table]:
    """Top-1 of the test split, rows in order of worth, every row's first seed before the second ones."""
    inputs = plan.inputs or Path()
    sets = ["cifar10"] if plan.toy else [name for name in SETS if (inputs / f"{name}.npz").is_file()]
    context = multiprocessing.get_context("spawn")
    at_once = 1 if plan.toy else max(1, min(MOST_AT_ONCE, (os.cpu_count() or 2) - 2))
    with tempfile.TemporaryDirectory() as folder:
        waiting = _trainings(plan, sets, Path(folder))
        begun: dict[Training, bool] = {}  # whether it came to its end
        running: dict[Training, Any] = {}
        while (waiting or running) and not plan.over:
            while waiting and len(running) < at_once:
                process = context.Process(target=_train, args=(waiting[0], plan), daemon=True)
                process.start()
                begun[waiting[0]] = False
                running[waiting.pop(0)] = process
            time.sleep(LOOK_S / 10 if plan.toy else LOOK_S)
            ended = [training for training, process in running.items() if not process.is_alive()]
            for training in ended:
                code = running.pop(training).exitcode
                begun[training] = code == 0
                _keep_trace(plan, training, code)
            if ended:
                yield from (_table(name, begun) for name in sets)
        for process in running.values():
            process.kill()
            process.join()
        yield from (_table(name, begun) for name in sets)


def _trainings(plan: Plan, sets: list[str], folder: Path) -> list[Training]:
    found = []
    for name, seed in product(sets, range(1 if plan.toy else SEEDS)):
        rows = list(core_rows(SETS[name]))
        found += [Training(name, row, seed, folder / f"{name}-{at}-{seed}") for at, row in enumerate(rows)]
    return sorted(found, key=lambda training: training.seed)[: 1 if plan.toy else None]


def _train(training: Training, plan: Plan) -> None:
    """In a process of its own: all that it leaves is its curve, or its trace."""
    from tests.benchmarks.study.recipe import train_config

    try:
        of = SETS[training.set_name]
        config = train_config(core_rows(of)[training.row], of, training.seed, precision="auto")
        # Small steps leave a GPU idle while the host prepares them; compiling takes longer than it saves.
        config = replace(
            config, global_batch=16 if plan.toy else BATCH, compile=False,
            optim=OptimConfig(lr=1.5e-3, warmup_epochs=training.epochs(plan) / 20, weight_decay=0.05),
        )  # fmt: skip
        model = config.model
        assert isinstance(model, FocusViTConfig)
        if plan.toy:
            config = replace(config, model=replace(model, num_classes=10))
            arrays = drawn(config, 32, plan.device)
        else:
            assert plan.inputs
            splits = (config.data.train_split, config.data.eval_split)
            tokens = model.tokens if model.needs_maps else None
            place = plan.inputs / f"{training.set_name}.npz"
            arrays = read(place, tokens, model.image_size[0], plan.device, splits)
            config = replace(config, model=replace(model, num_classes=len(arrays.classes)))
        points = 1 if plan.toy else POINTS
        trained(config, arrays, training.folder, plan.device, training.epochs(plan), points, shifts=True)
    except BaseException:
        training.folder.with_suffix(".trace").write_text(traceback.format_exc(), encoding="utf-8")
        raise SystemExit(1) from None


def _keep_trace(plan: Plan, training: Training, code: int | None) -> None:
    if code:
        place = training.folder.with_suffix(".trace")
        trace = place.read_text(encoding="utf-8") if place.is_file() else f"exit code {code}"
        plan.failures.append(f"{training.set_name}, {training.row}, seed {training.seed}\n{trace[-3000:]}")


def _table(name: str, begun: dict[Training, bool]) -> Table:
    """What every row of a set has reached."""
    rows = []
    for row in dict.fromkeys(training.row for training in begun if training.set_name == name):
        mine = {training: done for training, done in begun.items() if (training.set_name, training.row) == (name, row)}
        ends = [training.reached()[1] for training, done in mine.items() if done]
        others = [training.reached() for training, done in mine.items() if not done]
        spread = f"{min(ends):.1%} - {max(ends):.1%}" if ends else ""
        told = ", ".join(f"{top1:.1%} after {samples} samples" for samples, top1 in others)
        rows.append([row, f"{statistics.mean(ends):.1%}" if ends else "-", len(ends), spread, told])
    note = (
        f"{SETS[name].epochs:g} epochs (a rehearsal: 1), batch {BATCH}, one recipe and learning rate for all rows; the "
        "test split chose nothing. The last column: trainings that failed, or that time ended."
    )
    columns = ["row", "top-1", "seeds", "range", "not at the end"]
    return Table(title=f"accuracy {name}", columns=columns, rows=rows, note=note)
