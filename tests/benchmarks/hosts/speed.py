"""What a way costs: CPU time of superpixels and forward, all ways taking turns."""

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from focusvit.model.cost import time_calls
from tests.benchmarks.hosts.images import normalised
from tests.benchmarks.hosts.ways import Way, prepared, run

ROUNDS = 3
SPEED_NOTE = (
    "CPU time of superpixels (fast-slic) and forward together, reading left out; ways take turns, medians of rounds; "
    "speed is the median of paired ratios to the first row."
)


@torch.inference_mode()
def speeds(host: Path, model: nn.Module, views: Mapping[Way, Sequence[np.ndarray]]) -> dict[Way, list[str]]:
    """Way -> [ms an image, speed relative to the first way]."""

    def call(way: Way) -> None:
        prepared(model, way)
        run(model, way, views[way], normalised(views[way], host))

    found = time_calls({way.name: lambda way=way: call(way) for way in views}, ROUNDS, clock=time.process_time)
    first = next(iter(views))
    told = {}
    for way, images in views.items():
        ratio = statistics.median(a / b for a, b in zip(found[first.name], found[way.name]))
        told[way] = [f"{statistics.median(found[way.name]) / len(images) * 1e3:.0f}", f"{ratio:.2f}x"]
    return told
