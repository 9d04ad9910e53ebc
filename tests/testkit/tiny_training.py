"""Tiny trainings that can be stopped, for tests in one process and on several ranks. Importable by worker processes."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from focusvit.recipes.small import debug
from focusvit.runs.checkpoint import load_weights
from focusvit.runs.metrics_log import MetricsLog
from focusvit.runs.run_dir import RunDir
from focusvit.train.config import TrainConfig
from focusvit.train.loop import train


class Stop(Exception):  # noqa: N818 - it is no error of anything
    """Raised by the test to end a training as a kill would, right after a checkpoint."""


def small(**changes: Any) -> TrainConfig:
    """Nine steps on 50 samples, with a checkpoint every other step; a global batch that no world size divides."""
    base = dataclasses.replace(
        debug(), epochs=3, global_batch=17, log_every_steps=1, checkpoint_every_epochs=0.6, eval_every_epochs=1.0
    )
    return dataclasses.replace(base, **changes)


def run_with_stops(config: TrainConfig, uri: str, folder: str, stops: int, rank: int = 0, world_size: int = 1) -> None:
    """Train, dying after each checkpoint `stops` times, then to the end."""

    def die(samples: int, metrics: dict) -> None:
        raise Stop

    for stop in range(stops + 1):
        try:
            train(
                config, data_uri=uri, run_dir=folder, rank=rank, world_size=world_size,
                on_checkpoint=die if stop < stops else None,
            )  # fmt: skip
        except Stop:
            continue


def values_of(folder: Path | str) -> dict[int, dict[str, float]]:
    """samples seen -> values, without those that measure time, memory and machines."""
    points: dict[int, dict[str, float]] = {}
    for point in MetricsLog(RunDir(str(folder))).points:
        kept = {k: v for k, v in point["values"].items() if not k.startswith(("perf/", "system/"))}
        points.setdefault(point["samples"], {}).update(kept)
    assert points, f"{folder} holds no point: whatever is compared with it would agree"
    return points


def final_tensors(folder: Path | str) -> dict[str, torch.Tensor]:
    """Weights and optimizer state of the last checkpoint."""
    run = RunDir(str(folder))
    uri = run.checkpoint_uri(run.latest() or 0)
    weights, state = load_weights(uri), load_weights(uri, "state.safetensors")
    assert weights and state
    return {**weights, **state}
