"""Accuracy rows of the study from carried arrays: one recipe for every row, the product's loop, several seeds."""

import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from focusvit.data.config import DataConfig
from focusvit.model.config import FocusViTConfig
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
EPOCHS, BATCH, SEEDS = 50.0, 512, 3


def tables(plan: Plan) -> Iterator[Table]:
    """Top-1 of the test split, rows in order of worth, a seed at a time."""
    names = (
        ["cifar10"] if plan.toy else [name for name in SETS if plan.inputs and (plan.inputs / f"{name}.npz").is_file()]
    )
    for name in names:
        of, scores, failed = SETS[name], dict[str, list[float]](), dict[str, str]()
        for seed in range(1 if plan.toy else SEEDS):
            for row, model in sorted(core_rows(of).items(), key=lambda item: _rank(item[0])):
                if plan.over or (plan.toy and _rank(row) > 1):
                    continue
                data = DataConfig(image_px=model.image_size[0], map_px=of.map_px, eval_crop_fraction=1.0)
                optim = OptimConfig(lr=1.5e-3, warmup_epochs=0.1 if plan.toy else 2.0, weight_decay=0.05)
                # Small steps leave a GPU idle while the host prepares them; compiling takes longer than it saves.
                config = TrainConfig(
                    model=model, data=data, optim=optim, global_batch=16 if plan.toy else BATCH, seed=seed,
                    label_smoothing=0.1, compile=False,
                )  # fmt: skip
                found = scores.setdefault(row, [])
                try:
                    found.append(_top1(plan, name, config))
                except Exception as error:
                    failed[row] = plan.failed(f"{name}, {row}, seed {seed}", error)
                yield Table(
                    title=f"accuracy {name}", columns=["row", "top-1", "seeds", "range"],
                    rows=[_cells(told, values, failed.get(told)) for told, values in scores.items()],
                    note=f"{1 if plan.toy else EPOCHS:g} epochs, batch {config.global_batch}, one recipe for all rows; "
                    "the test split chose nothing.",
                )  # fmt: skip


def _top1(plan: Plan, name: str, config: TrainConfig) -> float:
    model = config.model
    assert isinstance(model, FocusViTConfig)
    if plan.toy:
        config = replace(config, model=replace(model, num_classes=10))
        arrays = drawn(config, 32, plan.device)
    else:
        assert plan.inputs
        splits = (config.data.train_split, config.data.eval_split)
        tokens = model.tokens if model.needs_maps else None
        arrays = read(plan.inputs / f"{name}.npz", tokens, model.image_size[0], plan.device, splits)
        config = replace(config, model=replace(model, num_classes=len(arrays.classes)))
    with tempfile.TemporaryDirectory() as folder:
        return trained(config, arrays, Path(folder), plan.device, 1.0 if plan.toy else EPOCHS)["val/top1"]


def _cells(row: str, values: list[float], failed: str | None) -> list[object]:
    if not values:
        return [row, failed, 0, ""]
    return [row, f"{statistics.mean(values):.1%}", len(values), f"{min(values):.1%} - {max(values):.1%}"]


def _rank(row: str) -> int:
    return next(
        (at for at, start in enumerate(ORDER) if row == start or (at > 1 and row.startswith(start))), len(ORDER)
    )
