"""What a way costs: CPU time of superpixels and forward, all ways taking turns."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from focusvit.drop_in.readout import superpixel_means, unpool
from focusvit.model.cost import time_calls
from tests.benchmarks.hosts.images import normalised
from tests.benchmarks.hosts.ways import PATCH_PX, READOUT, Way, prepared, run, superpixels

SPEED_NOTE = (
    "CPU time of superpixels (fast-slic), forward and, where features are read over them, their means, in float32; "
    "head, enlarging and painting left out; ways take turns, medians of rounds; speed is the median of paired ratios "
    "to the first row. Scores come from features in bfloat16."
)
Cost = tuple[float, float]
"""(ms an image, speed relative to the first way)"""
_WIDTH, _PAINTED = 384, 11  # of the features that are read (ViT-S), and of the scores that are painted


@torch.inference_mode()
def speeds(host: Path, model: nn.Module, views: Mapping[Way, Sequence[np.ndarray]], rounds: int) -> dict[Way, Cost]:
    """What each way costs on its own views of the same images. Reading over superpixels is timed once for each size
    of input and added; painting tokens costs a gather and is not counted."""
    calls: dict[str, Callable[[], object]] = {}
    for way, images in views.items():
        calls.setdefault(way.forward.name, lambda way=way, images=images: _forward(host, model, way, images))
        if way.reads == "superpixels":
            calls.setdefault(_readout_name(images), lambda images=images: _readout(images))
    found = {name: np.array(spent) for name, spent in time_calls(calls, rounds, clock=time.process_time).items()}
    prepared(model, Way())

    def seconds(way: Way) -> np.ndarray:
        return found[way.forward.name] + (found[_readout_name(views[way])] if way.reads == "superpixels" else 0.0)

    first = seconds(next(iter(views)))
    return {
        way: (float(np.median(seconds(way))) / len(views[way]) * 1e3, float(np.median(first / seconds(way))))
        for way in views
    }


def _forward(host: Path, model: nn.Module, way: Way, images: Sequence[np.ndarray]) -> None:
    prepared(model, way)
    run(model, way, images, normalised(images, host))


def _readout_name(images: Sequence[np.ndarray]) -> str:
    return f"readout at {images[0].shape}"


def _readout(images: Sequence[np.ndarray]) -> None:
    grid = (images[0].shape[0] // PATCH_PX, images[0].shape[1] // PATCH_PX)
    maps = superpixels(images, grid, [READOUT])[0]
    means = superpixel_means(torch.zeros(len(images), _WIDTH, *grid), maps, READOUT)
    unpool(means[..., :_PAINTED], maps)
