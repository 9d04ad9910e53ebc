"""The uniform cells that the regions of SLIC start from: which pixels each holds, which cells touch it.

Both forms of SLIC, in torch and in Triton, read these tables.
"""

import functools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from focusvit.model.partitions import grid_cells


def map_size(images: Tensor, tokens: int, iterations: int, reduce: int) -> tuple[int, int]:
    """(h, w) of the maps of `images` (B, 3, H, W).

    Raises:
        ValueError: sides that are no multiple of `reduce`, fewer pixels than regions, no iteration.
    """
    height, width = (side // reduce for side in images.shape[-2:])
    if images.ndim != 4 or images.shape[1] != 3 or (height * reduce, width * reduce) != tuple(images.shape[-2:]):
        raise ValueError(f"images are {tuple(images.shape)}; slic takes (B, 3, H, W), H and W multiples of {reduce}")
    if not 1 <= tokens <= height * width or iterations < 1:
        raise ValueError(f"tokens is {tokens}, iterations {iterations}: use 1..{height * width} and 1 or more")
    return height, width


def map_dtype(tokens: int) -> torch.dtype:
    """Of maps with so many regions: a byte a pixel where that is enough."""
    return torch.uint8 if tokens <= 256 else torch.int32


def spacing(tokens: int, height: int, width: int) -> float:
    """Side in pixels of a square as large as the mean region."""
    return float((height * width / tokens) ** 0.5)


class Layout(NamedTuple):
    """The uniform cells that regions start from. m is the size of the largest cell, C the most neighbours of a cell."""

    order: Tensor
    """int64 (K m): the pixel at each place of each cell; places beyond a cell's size repeat its first pixel"""
    valid: Tensor
    """float32 (K m): 0 at those places"""
    back: Tensor
    """int64 (P): the place of each pixel"""
    near: Tensor
    """int64 (K, C): a cell, then the cells that touch it; a cell with fewer repeats itself, and never by argmin"""
    into: Tensor
    """int64 (K, C): where in the flat (K C) of `near` each cell stands; K C, one past the end, where it does not"""
    box: Tensor
    """int32 (K, 4): top, left, height and width of each cell in pixels"""


def layout_on(device: torch.device, tokens: int, height: int, width: int) -> Layout:
    """Kept on the device: sending it again would make the host wait. Not while a model is exported: tensors made then
    are fake ones, and would stay.
    """
    if torch.compiler.is_compiling():
        return Layout(*(torch.from_numpy(part).to(device) for part in _layout(tokens, height, width)))
    return _kept_layout(device, tokens, height, width)


# A compiler would trace the loops; it takes the tensors as given instead. The mark is all that torch.compiler.disable
# leaves on a function, and calling that would load the compiler, a second of CPU, in every process that imports this.
layout_on._torchdynamo_disable = True  # type: ignore[attr-defined]


@functools.lru_cache(maxsize=16)
def _kept_layout(device: torch.device, tokens: int, height: int, width: int) -> Layout:
    with torch.inference_mode(False):  # a tensor of inference mode could not be used outside of it
        return Layout(*(torch.from_numpy(part).to(device) for part in _layout(tokens, height, width)))


@functools.lru_cache(maxsize=16)
def _layout(tokens: int, height: int, width: int) -> tuple[np.ndarray, ...]:
    """The fields of `Layout`."""
    cells = grid_cells(tokens, height, width)
    flat = cells.reshape(-1)
    sizes = np.bincount(flat, minlength=tokens)
    by_cell = np.argsort(flat, kind="stable")
    first = np.cumsum(sizes) - sizes
    rank = np.arange(flat.size) - first[flat[by_cell]]
    place = np.arange(sizes.max())
    order = by_cell[first[:, None] + np.where(place < sizes[:, None], place, 0)]
    back = np.empty(flat.size, np.int64)
    back[by_cell] = flat[by_cell] * len(place) + rank
    near = _neighbours(cells, tokens)
    into: list[list[int]] = [[] for _ in range(tokens)]
    for position, cell in enumerate(near.reshape(-1)):
        if position % near.shape[1] == 0 or cell != position // near.shape[1]:  # not a repeat
            into[cell].append(position)
    most = max(map(len, into))
    padded = np.array([found + [near.size] * (most - len(found)) for found in into])
    start, end = (np.stack(np.divmod(by_cell[at], width), 1) for at in (first, first + sizes - 1))
    box = np.concatenate([start, end - start + 1], 1).astype(np.int32)
    return order.reshape(-1), (place < sizes[:, None]).astype(np.float32).reshape(-1), back, near, padded, box


def _neighbours(cells: np.ndarray, tokens: int) -> np.ndarray:
    touch = np.eye(tokens, dtype=bool)
    for one, other in ((cells[1:], cells[:-1]), (cells[:, 1:], cells[:, :-1]),
                       (cells[1:, 1:], cells[:-1, :-1]), (cells[1:, :-1], cells[:-1, 1:])):  # fmt: skip
        touch[one, other] = touch[other, one] = True
    rows = [[k, *(int(i) for i in np.flatnonzero(touch[k]) if i != k)] for k in range(tokens)]
    most = max(map(len, rows))
    return np.array([row + row[:1] * (most - len(row)) for row in rows])
