"""Accuracy rows of the study from carried arrays: one recipe for every row, the product's loop, several seeds."""

import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from focusvit.data.config import DataConfig
from focusvit.train.config import TrainConfig
from focusvit.train.optim import OptimConfig
from tests.benchmarks.gpu.arrays import drawn, read, trained
from tests.benchmarks.gpu.plan import Plan
from tests.benchmarks.report import Table
from tests.benchmarks.study.matrix import SETS, core_rows

ORDER = (
    "ViT",
    "FocusViT",
    "FocusViT, LLA",
    "control: uniform grid",
    "control: half resolution",
    "control: patch twice",
)
EPOCHS, SEEDS = 50.0, 3


def tables(plan: Plan) -> Iterator[Table]:
    """Top-1 of the test split, rows in order of worth, a seed at a time."""
    names = (
        ["cifar10"] if plan.toy else [name for name in SETS if plan.inputs and (plan.inputs / f"{name}.npz").is_file()]
    )
    for name in names:
        of, scores = SETS[name], {}
        for seed in range(1 if plan.toy else SEEDS):
            for row, model in sorted(core_rows(of).items(), key=lambda item: _rank(item[0])):
                if plan.over or (plan.toy and _rank(row) > 1):
                    continue
                data = DataConfig(image_px=model.image_size[0], map_px=of.map_px, eval_crop_fraction=1.0)
                optim = OptimConfig(lr=1.5e-3, warmup_epochs=0.1 if plan.toy else 2.0, weight_decay=0.05)
                config = TrainConfig(
                    model=model, data=data, optim=optim, global_batch=16 if plan.toy else 128, seed=seed,
                    label_smoothing=0.1,
                )  # fmt: skip
                if plan.toy:
                    config = replace(config, model=replace(model, num_classes=10))
                    arrays, epochs = drawn(config, 32, plan.device), 1.0
                else:
                    splits = (config.data.train_split, config.data.eval_split)
                    tokens = model.tokens if model.needs_maps else None
                    arrays = read(plan.inputs / f"{name}.npz", tokens, model.image_size[0], plan.device, splits)
                    config = replace(config, model=replace(model, num_classes=len(arrays.classes)))
                    epochs = EPOCHS
                with tempfile.TemporaryDirectory() as folder:
                    found = trained(config, arrays, Path(folder), plan.device, epochs)
                scores.setdefault(row, []).append(found["val/top1"])
                yield Table(
                    title=f"accuracy {name}", columns=["row", "top-1", "seeds", "range"],
                    rows=[_cells(told, values) for told, values in scores.items()],
                    note=f"{epochs:g} epochs, one recipe for all rows; the test split chose nothing.",
                )  # fmt: skip


def _cells(row: str, values: list[float]) -> list[object]:
    return [row, f"{statistics.mean(values):.1%}", len(values), f"{min(values):.1%} - {max(values):.1%}"]


def _rank(row: str) -> int:
    return next(
        (at for at, start in enumerate(ORDER) if row == start or (at > 1 and row.startswith(start))), len(ORDER)
    )
