"""The product's own training loop on one rank, fed from arrays on the device."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from focusvit.data.config import DataConfig
from focusvit.train.config import TrainConfig
from focusvit.train.session import distributed
from tests.benchmarks.gpu.arrays import drawn, trained
from tests.benchmarks.gpu.plan import Plan
from tests.benchmarks.gpu.rows import rows
from tests.benchmarks.report import Table


def tables(plan: Plan) -> Iterator[Table]:
    """Images a second of whole trainings, checkpoints and scoring left in; then what nccl says to one rank."""
    batch, count, epochs = (4, 16, 1.0) if plan.toy else (256, 2048, 8.0)
    of = [row for row in rows("tiny" if plan.toy else "small", 224, plan.toy) if row.config is not None]
    held = [row for row in of if not row.name.startswith("control")]
    found: list[list[object]] = []
    for compiled, row in [(compiled, row) for compiled in (False, True) for row in held]:
        if plan.over or (plan.toy and compiled):
            break
        assert row.config is not None
        how = "compiled" if compiled else "eager"
        try:
            torch._dynamo.reset()
            data = DataConfig(image_px=row.config.image_size[0], map_px=2 * row.config.grid[0])
            model = replace(row.config, num_classes=10)
            config = TrainConfig(model=model, data=data, global_batch=batch, compile=compiled)
            arrays = drawn(config, count, plan.device)
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                scores = trained(config, arrays, Path(folder), plan.device, epochs)
                seconds = time.perf_counter() - began
            found.append([row.name, how, f"{scores['samples_seen'] / seconds:.0f}", f"{scores['val/loss']:.3f}"])
        except Exception as error:
            found.append([row.name, how, plan.failed(f"{row.name}, {how}", error), ""])
        yield Table(
            title="training loop one rank", rows=found, columns=["model", "how", "img/s, all in", "val/loss"],
            note=f"{count} drawn images on the device, batch {batch}; start, checkpoint and scoring count, and "
            "compiling, which is a large part of so short a training.",
        )  # fmt: skip
    yield _collectives(plan)


def _collectives(plan: Plan) -> Table:
    """One rank by itself: does the backend start, add up and wrap a model as trainings over many ranks do?"""
    backend = "gloo" if plan.device == "cpu" else "nccl"
    try:
        torch.distributed.init_process_group(backend, store=torch.distributed.HashStore(), rank=0, world_size=1)
        total = torch.ones(4, device=plan.device)
        torch.distributed.all_reduce(total)
        layer = distributed(torch.nn.Linear(4, 2).to(plan.device), torch.device(plan.device))
        layer(total).sum().backward()
        plan.wait()
        answer = f"sum {float(total.sum()):g} of 4, gradients of a wrapped layer are there"
    except Exception as error:
        answer = plan.failed(backend, error)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return Table(title="collectives of one rank", columns=["backend", "answer"], rows=[[backend, answer]])
