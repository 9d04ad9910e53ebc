"""How fast a linear layer is for few and for many rows: what a model with few tokens meets at batch 1."""

from functools import partial
from statistics import median

import torch
from torch import Tensor, randn
from torch.nn import functional

from focusvit.model.cost import time_calls
from focusvit.model.presets import SIZES
from tests.benchmarks.model.config import BenchConfig
from tests.benchmarks.report import Table

_LAYERS = 12  # other weights in each, as in a model: together they do not stay in the cache


def linear_table(config: BenchConfig) -> Table:
    """Multiply-adds a second of the MLP's first layer (D -> 4 D, fp32), eager, by the number of rows of its input."""
    width = SIZES[config.size]["width"]
    weights = [randn(4 * width, width, device=config.device) for _ in range(_LAYERS)]
    biases = [randn(4 * width, device=config.device) for _ in range(_LAYERS)]

    def layers(x: Tensor) -> None:
        with torch.inference_mode():
            for weight, bias in zip(weights, biases):
                functional.linear(x, weight, bias)

    rows = {
        "33: class token and 32 latents": 33, "65: class token and 64 superpixels": 65,
        "101: class token and 100 superpixels": 101, "197: a plain ViT": 197, "4160: 64 images of 65": 64 * 65,
    }  # fmt: skip
    inputs = {name: randn(1, count, width, device=config.device) for name, count in rows.items()}
    calls = {name: partial(layers, x) for name, x in inputs.items()}
    seconds = time_calls(calls, 5 * config.rounds, config.device, config.timer)
    rate = {name: count * 4 * width**2 * _LAYERS / median(seconds[name]) / 1e9 for name, count in rows.items()}
    plain = rate["197: a plain ViT"]
    lines = [(name, f"{value:.1f}", f"{value / plain:.0%}") for name, value in rate.items()]
    note = "At batch 1 the gain of fewer tokens is the ratio of multiply-adds times the share in the last column."
    unit = "G multiply-adds a CPU second" if config.clock == "cpu" else "G multiply-adds/s"
    title = f"A linear layer {width} -> {4 * width}, fp32, by rows of its input"
    return Table(title=title, columns=("rows", unit, "of 197 rows"), rows=lines, note=note)
