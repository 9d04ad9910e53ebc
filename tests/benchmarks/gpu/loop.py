"""The product's own training loop on one rank, fed from arrays on the device."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from focusvit.data.config import DataConfig
from focusvit.train.config import TrainConfig
from tests.benchmarks.gpu.arrays import drawn, trained
from tests.benchmarks.gpu.plan import Plan
from tests.benchmarks.gpu.rows import rows
from tests.benchmarks.report import Table


def tables(plan: Plan) -> Iterator[Table]:
    """Images a second of whole trainings, checkpoints and scoring left in."""
    if plan.device != "cpu" and torch.distributed.is_nccl_available():
        store = torch.distributed.HashStore()
        torch.distributed.init_process_group("nccl", store=store, rank=0, world_size=1)
    batch, count, epochs = (4, 16, 1.0) if plan.toy else (256, 2048, 8.0)
    found: list[list[object]] = []
    for row in rows("tiny" if plan.toy else "small", 224, plan.toy):
        if plan.over or row.config is None or not (row.name.startswith("FocusViT") or "ours" in row.name):
            continue
        side = row.config.image_size[0]
        data = DataConfig(image_px=side, map_px=2 * row.config.grid[0])
        config = TrainConfig(model=replace(row.config, num_classes=10), data=data, global_batch=batch)
        for compiled in (False, True):
            if plan.over or (plan.toy and compiled):
                continue
            told = replace(config, compile=compiled)
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                scores = trained(told, drawn(told, count, plan.device), Path(folder), plan.device, epochs)
                seconds = time.perf_counter() - began
            told_s = f"{scores['samples_seen'] / seconds:.0f}"
            found.append([row.name, "compiled" if compiled else "eager", told_s, f"{scores['val/loss']:.3f}"])
            yield Table(
                title="training loop one rank", rows=found, columns=["model", "how", "img/s, all in", "val/loss"],
                note=f"{count} drawn images on the device, batch {batch}; start, checkpoint and scoring count.",
            )  # fmt: skip
