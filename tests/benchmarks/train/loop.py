"""One process of `python -m tests.benchmarks train`: the step, the real loop in parts, the time a checkpoint blocks."""

import cProfile
import dataclasses
import pstats
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from focusvit.data.batch import Batch
from focusvit.model import presets
from focusvit.model.config import FocusViTConfig
from focusvit.model.cost import example_inputs, time_calls
from focusvit.model.model import FocusViT
from focusvit.recipes.small import recipe
from focusvit.runs.run_dir import RunDir
from focusvit.runs.writer import CheckpointWriter
from focusvit.train.config import TrainConfig
from focusvit.train.guard import Guard
from focusvit.train.learner import Learner
from focusvit.train.loop import train
from focusvit.train.optim import OptimConfig, build_optimizer
from focusvit.train.step import StepOptions, train_step
from pipeline.preprocess import PreprocessConfig, preprocess
from pipeline.shards.dataset import open_dataset
from pipeline.sources.embedded import write_shapes
from tests.benchmarks.report import Table

from .config import BenchTrainConfig


def stepper(config: FocusViTConfig, batch: int, device: str = "cpu", world_size: int = 1) -> Callable[[], object]:
    """One optimizer step on random images, as the loop takes it, with AdamW, clipping and guard."""
    torch.manual_seed(0)
    model = FocusViT(config).to(device).train()
    return stepper_of(model, model, batch, device, world_size)


def stepper_of(
    model: FocusViT, wrapped: torch.nn.Module, batch: int, device: str = "cpu", world_size: int = 1
) -> Callable[[], object]:
    """The same for a model that is there; `wrapped` is what DDP or the compiler made of it."""
    images, maps = example_inputs(model.config, batch, device=device)
    ids = torch.arange(batch, device=device)
    data = Batch(
        images=images, maps=maps, num_tokens=model.config.tokens if maps is not None else None, class_ids=ids % 10,
        sample_ids=ids,
    )  # fmt: skip
    optimizer = build_optimizer(model, OptimConfig())
    options = StepOptions(
        global_batch=batch * world_size, world_size=world_size, label_smoothing=0.1, clip_norm=1.0,
        bf16=device != "cpu", guard=Guard(0.0, device),
    )  # fmt: skip

    def step() -> object:
        return train_step(wrapped, optimizer, data, options)

    return step


def step_tables(config: BenchTrainConfig) -> list[Table]:
    """FocusViT's whole training step beside the plain ViT's, taking turns."""
    calls = {
        f"ViT-{config.size}/16": stepper(presets.vit(config.size), config.batch, config.device),
        f"FocusViT-{config.size}": stepper(presets.focusvit(config.size), config.batch, config.device),
    }
    seconds = time_calls(calls, config.rounds, config.device, config.timer)
    first = next(iter(seconds.values()))
    rows = [
        [name, f"{1000 * statistics.median(times):.0f}", f"{config.batch / statistics.median(times):.2f}",
         f"{statistics.median(a / b for a, b in zip(first, times)):.2f}x"]
        for name, times in seconds.items()
    ]  # fmt: skip
    return [
        Table(
            title=f"Training step, 224 px, batch {config.batch}, {config.device} (goal: at least 2x)",
            columns=("model", f"step, {config.unit} ms", f"images a {config.unit} second", "against the first"),
            rows=rows,
            note="Forward, loss, backward, clipping, guard and AdamW; superpixels come with the sample.",
        )
    ]


# What of a run is what: the file and function under which the profiler counts it, callees included, and who calls it
# where a scoring calls it too.
_PARTS = {
    "forward and loss": [("focusvit/train/step.py", "losses_of", "train_step")],
    "backward": [("torch/_tensor.py", "backward", "")],
    "optimizer": [("torch/optim/optimizer.py", "wrapper", "")],
    "waiting for data": [("focusvit/train/meters.py", "waiting", "")],
    "colours and mixing": [("focusvit/data/batch.py", "finished", "_step")],
    "clipping and gradient norm": [("torch/nn/utils/clip_grad.py", "clip_grad_norm_", "")],
    "moving average": [("focusvit/train/learner.py", "stepped", "")],
    "points of the curves": [("focusvit/train/meters.py", "point", ""), ("focusvit/runs/metrics_log.py", "append", "")],
}
_OUTSIDE = [
    ("focusvit/train/session.py", "__init__"),
    ("focusvit/train/loop.py", "_score"),
    ("focusvit/train/loop.py", "_save"),
    ("focusvit/runs/writer.py", "wait", "train"),  # the end waits for the last file
]


def loop_tables(config: BenchTrainConfig) -> list[Table]:
    """A real training from real shards, seen by Python's profiler."""
    with tempfile.TemporaryDirectory() as folder:
        data = _drawn_shards(Path(folder), samples=config.batch * 2)
        training = _loop_config(config)
        spent: dict[str, float] = {}
        profiler = cProfile.Profile(config.timer)
        run_dir = str(Path(folder, "run"))
        few = dataclasses.replace(training, epochs=1)  # two steps: compiles what is compiled, fills caches
        train(few, data_uri=data, run_dir=str(Path(folder, "first")))
        profiler.runcall(train, training, data_uri=data, run_dir=run_dir)
        stats = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
        total = _seconds(stats, "focusvit/train/loop.py", "train") - sum(_seconds(stats, *place) for place in _OUTSIDE)
        for part, places in _PARTS.items():
            spent[part] = sum(_seconds(stats, *place) for place in places)
        points = (Path(run_dir) / "metrics.jsonl").read_bytes().count(b"\n")
    spent["everything else"] = total - sum(spent.values())
    model_s = sum(spent[name] for name in ("forward and loss", "backward", "optimizer"))
    data_s, points_s = spent["waiting for data"] + spent["colours and mixing"], spent["points of the curves"]
    rows = [[n, f"{1000 * s / config.steps:.2f}", f"{s / total:.2%}"] for n, s in spent.items()]
    rows += [
        ["whole step", f"{1000 * total / config.steps:.2f}", "100%"],
        ["loop overhead (goal: under 3 %)", f"{1000 * (total - model_s - data_s) / config.steps:.2f}",
         f"{(total - model_s - data_s) / (total - data_s):.2%}"],
        ["tracking (goal: under 0.5 %)", f"{1000 * points_s / config.steps:.2f}", f"{points_s / total:.2%}"],
    ]  # fmt: skip
    return [
        Table(
            title=f"Parts of the loop's step, focusvit_{config.size}_in1k, 224 px, batch {config.batch}",
            columns=("part", f"{config.unit} ms a step", "share"),
            rows=rows,
            note=f"{config.steps} steps from shards of 224 px, decoded in this process; {points} points. Overhead is "
            "the step without forward, loss, backward, optimizer, data, colours and mixing. Scoring "
            "and checkpoints are left out.",
        )
    ]


def _loop_config(config: BenchTrainConfig) -> TrainConfig:
    base = recipe(f"focusvit_{config.size}_in1k")
    return dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, loader_workers=0),
        global_batch=config.batch,
        epochs=config.steps / 2,  # the split holds two batches
        eval_every_epochs=config.steps,
        checkpoint_every_epochs=config.steps,
        optim=dataclasses.replace(base.optim, warmup_epochs=1),
    )


def _drawn_shards(folder: Path, samples: int) -> str:
    write_shapes(folder / "images", train_per_class=samples // 8 + 1, val_per_class=1, side_px=224)
    for split, count in (("train", samples), ("val", 8)):
        preprocess(
            PreprocessConfig(
                source=str(folder / "images" / split), out=str(folder / "shards"), split=split, max_samples=count,
                local=True, workers=0,
            )
        )  # fmt: skip
    return str(folder / "shards")


def _seconds(stats: dict, file: str, function: str, caller: str = "") -> float:
    """Seconds inside a function, callees included. KeyError when it never ran: the list above would be stale."""
    found = [entry for (path, _, name), entry in stats.items() if path.endswith(file) and name == function]
    if caller:
        found = [by for entry in found for (_, _, name), by in entry[4].items() if name == caller]
    if not found:
        raise KeyError(f"{file}: {function} was not called in the profiled training")
    return max(entry[3] for entry in found)  # the outermost of functions that share a name


def checkpoint_tables(config: BenchTrainConfig) -> list[Table]:
    """How long the loop stands still while a state of 100 MB is handed to the writer."""
    with tempfile.TemporaryDirectory() as folder:
        data = open_dataset(_drawn_shards(Path(folder), samples=16))
        base = recipe("focusvit_small_in1k")
        # Weights and two moments of 8.7 M parameters are 104 MB.
        training = dataclasses.replace(base, model=dataclasses.replace(base.model, width=240, heads=4), ema_decay=None)
        learner = Learner(training, torch.device("cpu"))
        for parameter in learner.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        learner.optimizer.step()
        size = 12 * sum(p.numel() for p in learner.model.parameters())
        run, writer, seconds = RunDir(str(Path(folder, "run"))), CheckpointWriter(), []
        for turn in range(config.rounds + 1):
            learner.samples_seen = 1 + turn
            start = config.timer()
            learner.fingerprint()
            learner.save(run, data, writer)
            seconds.append(config.timer() - start)
            start = time.perf_counter()
            writer.wait()
            write_s = time.perf_counter() - start
    median = statistics.median(seconds[1:])
    rows = [[f"{size / 1e6:.0f} MB", f"{1000 * median:.1f}", f"{1000 * seconds[0]:.1f}", f"{1000 * write_s:.0f}"]]
    return [
        Table(
            title="A checkpoint (goal: blocks under 50 ms for 100 MB)",
            columns=("state", f"blocked, {config.unit} ms", "the first one", "written beside the training, wall ms"),
            rows=rows,
            note="Check of the weights over ranks and copy in memory; the file is written by a thread.",
        )
    ]
