"""Ways to spend fewer tokens on an image in somebody's pretrained ViT: superpixels, and the controls of equal
budget."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

import focusvit
from focusvit.drop_in.controls import bipartite
from focusvit.model.partitions import grid_cells
from pipeline.errors import UsageError
from pipeline.superpixels.hierarchy import fit
from pipeline.superpixels.segment import SuperpixelConfig, segment_image

Kind = Literal["all", "superpixels", "keys", "grid", "token merging"]
Reads = Literal["patches", "tokens", "superpixels"]
PATCH_PX = 14
READOUT = 196
"""superpixels that the last features are averaged over where a way reads 'superpixels'"""
_MAP_PATCH_PX = 7  # map pixels along a patch: half of those of a ViT with patches of 14
_TOLD = {"patches": "", "tokens": ", painted", "superpixels": f", read over {READOUT} superpixels"}


@dataclass(frozen=True)
class Way:
    """One row of the tables."""

    kind: Kind = "all"
    levels: tuple[tuple[int, int], ...] = ()
    """(depth, tokens) of each level"""
    size: tuple[int, int] | None = None
    """height and width of the input, where they are not the table's own"""
    reads: Reads = "patches"
    """what a dense head reads: patches (enlarged bilinearly), a pooled way's own regions, or the last features of
    patches averaged over superpixels"""

    @property
    def tokens(self) -> str:
        if self.kind == "token merging":
            return f"{self.levels[0][1]} .. {self.levels[-1][1]}"
        return " -> ".join(str(count) for _, count in self.levels) or "all"

    @property
    def name(self) -> str:
        if self.kind == "all":
            told = "all patches" if self.size is None else f"{self.size[0]}x{self.size[1]} px"
        elif self.kind == "token merging":
            told = f"token merging, {self.levels[0][1] - self.levels[1][1]} a block"
        else:
            told = ", ".join(f"{count} before block {depth}" for depth, count in self.levels)
            told = f"{self.kind}, {told}"
        return told + _TOLD[self.reads]

    @property
    def forward(self) -> "Way":
        """The way whose features this one reads."""
        return dataclasses.replace(self, reads="patches")

    @property
    def depth(self) -> int | None:
        """The first block that it changes; None where nothing of the host changes."""
        return self.levels[0][0] if self.levels else None


def some(every: Sequence[Way], only: Sequence[int]) -> list[Way]:
    """The ways with the numbers `only`, all where that is empty. Raises `UsageError` for a number without a way."""
    if missing := set(only) - set(range(len(every))):
        told = ", ".join(f"{number} {way.name}" for number, way in enumerate(every))
        raise UsageError(f"--only {min(missing)}: no way has that number. They are {told}.")
    return [every[number] for number in only] or list(every)


def pooled(kind: Kind, levels: Mapping[int, int], reads: Reads = "patches") -> Way:
    """{depth: tokens}: one level, or several of one hierarchy."""
    return Way(kind, tuple(levels.items()), reads=reads)


def merged(num_patches: int, each: int, blocks: int) -> Way:
    """Token merging: `each` tokens fewer before every block."""
    return Way("token merging", tuple((block, num_patches - each * (block + 1)) for block in range(blocks)))


def prepared(model: nn.Module, way: Way) -> nn.Module:
    """The host patched (or freed) for a way, in place."""
    focusvit.unpatch(model)
    if way.kind == "all":
        return model
    merge: Any = {"keys": "keys", "token merging": bipartite}.get(way.kind, "colour")
    return focusvit.patch(model, dict(way.levels), merge=merge)


def superpixels(images: Sequence[np.ndarray], grid: tuple[int, int], budgets: Sequence[int]) -> list[Tensor]:
    """One map (B, Hm, Wm) for each budget, as the loader makes them from shards: fast-slic's hierarchy, fitted."""
    found = [segment_image(image, SuperpixelConfig()) for image in images]
    size, whole = (grid[0] * _MAP_PATCH_PX, grid[1] * _MAP_PATCH_PX), (0.0, 0.0, 1.0, 1.0)
    return [torch.from_numpy(np.stack([fit(*one, whole, False, size, count) for one in found])) for count in budgets]


def run(model: nn.Module, way: Way, images: Sequence[np.ndarray], pixels: Tensor) -> Tensor:
    """The host's last hidden states (B, 1 + N, D) for one batch; superpixels are made here, so that whoever times this
    times them too."""
    grid = (pixels.shape[2] // PATCH_PX, pixels.shape[3] // PATCH_PX)
    maps = maps_of(way, images, grid)
    found = model(pixels) if maps is None else model(pixels, maps=maps)
    return found.last_hidden_state  # type: ignore[no-any-return]


def maps_of(way: Way, images: Sequence[np.ndarray], grid: tuple[int, int]) -> list[Tensor] | None:
    """One map (B, Hm, Wm) for each level: superpixels, or cells of a uniform grid; None where a way needs none."""
    budgets = [count for _, count in way.levels]
    if way.kind == "superpixels":
        return superpixels(images, grid, budgets)
    if way.kind != "grid":
        return None
    cells = [grid_cells(count, grid[0] * _MAP_PATCH_PX, grid[1] * _MAP_PATCH_PX) for count in budgets]
    return [torch.from_numpy(one).expand(len(images), -1, -1) for one in cells]
