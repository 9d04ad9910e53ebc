"""ViT-S/14 and ViT-B/16 with random weights, as they are and patched: time with superpixels from everywhere, and peak
memory."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from focusvit.drop_in.patch import patch
from focusvit.model.cost import inference_peak, time_calls
from focusvit.model.presets import SIZES
from pipeline.superpixels.hierarchy import fit
from pipeline.superpixels.segment import SuperpixelConfig, segment_image
from tests.benchmarks.report import Table

SHAPES = {"ViT-Ti/16": ("tiny", 16), "ViT-S/14": ("small", 14), "ViT-B/16": ("base", 16)}
_MAP_PATCH_PX = 8
_HALF = (0.5, 0.5, 0.5)


class WithMaps(nn.Module):
    """A host whose maps are made for each call by `make`, or not at all."""

    def __init__(self, host: nn.Module, make: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.host, self.make = host, make

    def forward(self, pixels: Tensor) -> Tensor:
        if self.make is None:
            return self.host(pixels).last_hidden_state
        return self.host(pixels, maps=self.make(pixels).to(pixels.device)).last_hidden_state


def shape_table(
    shape: str, px: int, photos: Sequence[np.ndarray], *, share: float, depth: float, rounds: int, device: str,
    clock: Callable[[], float],
) -> Table:  # fmt: skip
    """One table: the host, and the same host with `share` of its patches left after `depth` of its blocks.

    `photos`: the batch, uint8 (H, W, 3) each. An image side that patches do not divide is rounded down.
    """
    size, patch_px = SHAPES[shape]
    side = px // patch_px * patch_px
    images = [cv2.resize(photo, (side, side), interpolation=cv2.INTER_AREA) for photo in photos]
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().to(device) / 127.5 - 1
    tokens, grid = max(1, round(share * (side // patch_px) ** 2)), side // patch_px

    def fast_slic(_: Tensor) -> Tensor:
        whole, map_size = (0.0, 0.0, 1.0, 1.0), (grid * _MAP_PATCH_PX, grid * _MAP_PATCH_PX)
        found = [fit(*segment_image(image, SuperpixelConfig()), whole, False, map_size, tokens) for image in images]
        return torch.from_numpy(np.stack(found))

    stored = fast_slic(pixels)
    at = max(1, round(depth * SIZES[size]["depth"]))
    ways = {
        "as it is": WithMaps(_host(size, patch_px, side)),
        "patched, superpixels from shards": WithMaps(_patched(size, patch_px, side, tokens, at), lambda _: stored),
        "patched, superpixels by fast-slic": WithMaps(_patched(size, patch_px, side, tokens, at), fast_slic),
        "patched, superpixels on the device": WithMaps(_patched(size, patch_px, side, tokens, at)),
    }
    for way in ways.values():
        way.to(device).eval()

    def call(way: WithMaps) -> None:
        with torch.inference_mode():
            way(pixels)

    seconds = time_calls({name: lambda way=way: call(way) for name, way in ways.items()}, rounds, device, clock)
    plain, rows = seconds["as it is"], []
    for name, way in ways.items():
        ratio = statistics.median(a / b for a, b in zip(plain, seconds[name]))
        peak = inference_peak(way, pixels, device=device)
        each = statistics.median(seconds[name]) / len(images) * 1e3
        rows.append([name, f"{each:.1f}", f"{ratio:.2f}x", f"{peak / 2**20:.0f}"])
    return Table(
        title=f"{shape}, {side} px, batch {len(images)}, {device}",
        columns=["model", "ms an image", "speed", "inference peak, MiB"],
        rows=rows,
        note=f"{tokens} of {grid**2} patches left before block {at} of {SIZES[size]['depth']}; random weights, fp32; "
        "making superpixels is counted, but for those from shards; medians of rounds and of paired ratios.",
    )


def _host(size: str, patch_px: int, side: int) -> Any:
    from transformers import ViTConfig, ViTModel

    shape = SIZES[size]
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=shape["width"], num_hidden_layers=shape["depth"], num_attention_heads=shape["heads"],
        intermediate_size=4 * shape["width"], image_size=side, patch_size=patch_px,
    )  # fmt: skip
    return ViTModel(config, add_pooling_layer=False)


def _patched(size: str, patch_px: int, side: int, tokens: int, depth: int) -> nn.Module:
    return patch(_host(size, patch_px, side), tokens, depth, merge="colour", mean=_HALF, std=_HALF)
