"""What `bench scenes` compares on street scenes: FocusViT, and other ways to spend as many tokens on a frame."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from focusvit.drop_in.readout import superpixel_means
from focusvit.model.config import FocusViTConfig
from focusvit.model.model import FocusViT
from focusvit.model.partitions import grid_cells
from focusvit.model.presets import focusvit_64px
from pipeline.superpixels.hierarchy import fit
from pipeline.superpixels.segment import SuperpixelConfig, segment_image
from tests.benchmarks.hosts.dense import CLASSES
from tests.benchmarks.hosts.readings import Reading
from tests.benchmarks.model.controls import control

Reads = Literal["own", "superpixels"]
WHOLE = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A model, and what a linear head reads of it."""

    name: str
    model: FocusViTConfig
    reads: Reads = "own"
    """own: its tokens; those of a grid are enlarged bilinearly, superpixels are painted. superpixels: the last features
    of patches averaged over as many superpixels as FocusViT has, painted"""

    @property
    def tokens(self) -> int:
        """Rows that the trunk runs on."""
        return self.model.tokens or self.model.num_patches

    @property
    def superpixels(self) -> bool:
        """Whether it needs them."""
        return self.model.needs_maps or self.reads == "superpixels"


def focusvit(size: tuple[int, int], width: int) -> FocusViTConfig:
    """Patches of 8 px, one superpixel for four of them."""
    patches = size[0] // 8 * (size[1] // 8)
    return focusvit_64px(
        image_px=size, patch_px=8, width=width, heads=width // 32, tokens=patches // 4, num_classes=CLASSES
    )


def rows(size: tuple[int, int], width: int) -> list[Row]:
    """FocusViT first. At `size` = (height, width) of the whole image, multiples of 32. All have the same stem."""
    model = focusvit(size, width)
    whole = control("full_grid", model)

    def smaller(share: float) -> FocusViTConfig:
        return replace(whole, image_px=tuple(round(side * share / 8) * 8 for side in size), grid_depth=0)

    return [
        Row(name="FocusViT", model=model),
        Row(name="control: uniform grid", model=control("uniform_grid", model)),
        Row(name="ViT, three quarters of the resolution", model=smaller(0.75)),
        Row(name="ViT, half resolution", model=smaller(0.5)),
        Row(name="ViT, patch twice as large", model=replace(whole, patch_px=16, grid_depth=0)),
        Row(name="ViT", model=replace(whole, grid_depth=0)),
    ]


def read_too(row: Row) -> Row | None:
    """The same model read over superpixels; None where that is no other reading."""
    if row.model.tokens is not None:
        return None
    return replace(row, name=f"{row.name}, read over superpixels", reads="superpixels")


@dataclass(frozen=True)
class View:
    """A frame as a model gets it."""

    image: np.ndarray
    """uint8 (H, W, 3) at the model's size"""
    regions: np.ndarray | None
    """(H, W): its superpixels, where the row needs them"""


def view(row: Row, frame: np.ndarray, count: int, flip: bool = False) -> View:
    """A frame (or a part of it) at the row's size; `count` superpixels are cut from what the model sees."""
    height, width = row.model.image_size
    smaller = cv2.INTER_AREA if height <= frame.shape[0] else cv2.INTER_CUBIC
    image = cv2.resize(frame, (width, height), interpolation=smaller)
    image = np.ascontiguousarray(image[:, ::-1]) if flip else image
    if not row.superpixels:
        return View(image, None)
    return View(image, fit(*segment_image(image, SuperpixelConfig()), WHOLE, False, (height, width), count))


def features(model: FocusViT, row: Row, views: list[View], count: int) -> Tensor:
    """(B, R, D): one row of features for each region that the head reads."""
    images = torch.from_numpy(np.stack([one.image for one in views])).permute(0, 3, 1, 2)
    maps = torch.from_numpy(np.stack([one.regions for one in views])).long() if row.superpixels else None  # type: ignore[misc]
    given: tuple[Any, ...] = (maps, count) if row.model.needs_maps else ()
    found = model.token_features(images, *given)[1]
    if row.reads == "own" or maps is None:
        return found
    return superpixel_means(found.transpose(1, 2).unflatten(2, row.model.grid), maps, count)


def reading(row: Row, one: View, values: Tensor) -> Reading:
    """Features (R, D) of a view, and the pixels that they stand for."""
    if row.superpixels:
        assert one.regions is not None
        return Reading(values, one.regions.astype(np.int64), False)
    height, width = row.model.grid
    if row.model.tokens is None:
        return Reading(values, np.arange(height * width).reshape(height, width), True)
    return _cells(values, row.model.tokens, height, width)


def _cells(values: Tensor, tokens: int, height: int, width: int) -> Reading:
    """A uniform grid of `tokens` cells, each some whole patches: an image of cells."""
    cells = grid_cells(tokens, height, width)
    lines, columns = (len(np.unique(part)) for part in (cells[:, 0], cells[0]))
    if lines * columns != tokens:
        raise ValueError(f"{tokens} cells of {height} x {width} patches are no grid of lines and columns")
    return Reading(values, np.arange(tokens).reshape(lines, columns), True)
