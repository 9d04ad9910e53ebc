"""Ways to spend fewer tokens on an image in somebody's pretrained ViT: superpixels, and the controls of equal
budget."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

import focusvit
from focusvit.drop_in.controls import bipartite
from focusvit.model.partitions import grid_cells
from pipeline.superpixels.hierarchy import fit
from pipeline.superpixels.segment import SuperpixelConfig, segment_image

Kind = Literal["all", "superpixels", "keys", "grid", "token merging"]
_MAP_PATCH_PX = 7  # map pixels along a patch: half of those of a ViT with patches of 14


@dataclass(frozen=True)
class Way:
    """One row of the tables."""

    name: str
    kind: Kind = "all"
    levels: tuple[tuple[int, int], ...] = ()
    """(depth, tokens) of each level"""
    shrink: float = 1.0
    """the image's sides relative to the host's own"""

    @property
    def tokens(self) -> str:
        return " -> ".join(str(count) for _, count in self.levels) or "all"


def pooled(kind: Kind, tokens: int, depth: int) -> Way:
    return Way(f"{tokens} {kind} before block {depth}", kind, ((depth, tokens),))


def nested(kind: Kind, levels: Mapping[int, int]) -> Way:
    text = ", ".join(f"{count} before {depth}" for depth, count in levels.items())
    return Way(f"{kind}, nested: {text}", kind, tuple(levels.items()))


def merged(num_patches: int, each: int, blocks: int) -> Way:
    """Token merging: `each` tokens fewer before every block."""
    levels = tuple((block, num_patches - each * (block + 1)) for block in range(blocks))
    return Way(f"token merging, {each} a block", "token merging", levels)


def prepared(model: nn.Module, way: Way) -> nn.Module:
    """The host patched (or freed) for a way, in place."""
    focusvit.unpatch(model)
    if way.kind == "all":
        return model
    merge: Any = {"keys": "keys", "token merging": bipartite}.get(way.kind, "colour")
    return focusvit.patch(model, dict(way.levels), merge=merge)


def maps_of(way: Way, images: Sequence[np.ndarray], grid: tuple[int, int]) -> list[Tensor] | None:
    """One map for each level, as the loader makes them from shards: fast-slic's hierarchy fitted, or uniform cells."""
    size = (grid[0] * _MAP_PATCH_PX, grid[1] * _MAP_PATCH_PX)
    if way.kind == "grid":
        cells = [torch.from_numpy(grid_cells(tokens, *size)) for _, tokens in way.levels]
        return [one.expand(len(images), -1, -1) for one in cells]
    if way.kind != "superpixels":
        return None
    found = [segment_image(image, SuperpixelConfig()) for image in images]
    whole = (0.0, 0.0, 1.0, 1.0)
    return [
        torch.from_numpy(np.stack([fit(*one, whole, False, size, tokens) for one in found])) for _, tokens in way.levels
    ]


def run(model: nn.Module, way: Way, images: Sequence[np.ndarray], pixels: Tensor) -> Any:
    """The host's output for one batch; superpixels are made here, so that whoever times this times them too."""
    grid = (pixels.shape[2] // 14, pixels.shape[3] // 14)
    maps = maps_of(way, images, grid)
    return model(pixels, maps=maps) if maps is not None else model(pixels)
