"""Partitions that need no superpixels: the controls' grid cells and random regions, and the patch grid."""

from functools import lru_cache

import numpy as np
import torch

from .regions import Regions, measure_regions, overlap_matrix

RANDOM_PARTITIONS = 64
_MAX_MAP_PX = 512


def grid_cells(num_cells: int, height: int, width: int) -> np.ndarray:
    """A map (height, width) of exactly `num_cells` near-square cells: rows of cells, some with one cell more.

    Raises:
        ValueError: more cells than pixels.
    """
    if not 1 <= num_cells <= height * width:
        raise ValueError(f"{num_cells} cells do not fit a map of {height}x{width}; use 1..{height * width}")
    rows = rows_of_cells(num_cells, height, width)
    firsts = [row * num_cells // rows for row in range(rows + 1)]
    cell_row = np.arange(height) * rows // height
    first = np.array(firsts)[cell_row][:, None]
    count = np.diff(firsts)[cell_row][:, None]
    return (first + np.arange(width)[None] * count // width).astype(np.int32)


def rows_of_cells(num_cells: int, height: int, width: int) -> int:
    """How many rows `grid_cells` lays its cells in."""
    return min(max(round((num_cells * height / width) ** 0.5), -(-num_cells // width), 1), num_cells, height)


def random_cells(num_cells: int, height: int, width: int, seed: int) -> np.ndarray:
    """A map of `num_cells` regions around random seed pixels (nearest seed; the lower id on a tie), none empty."""
    if not 1 <= num_cells <= height * width:
        raise ValueError(f"{num_cells} cells do not fit a map of {height}x{width}; use 1..{height * width}")
    seeds = np.sort(np.random.default_rng([seed, num_cells]).permutation(height * width)[:num_cells])
    y, x = np.divmod(np.arange(height * width), width)
    seed_y, seed_x = np.divmod(seeds, width)
    distance = ((y[:, None] - seed_y) / height) ** 2 + ((x[:, None] - seed_x) / width) ** 2
    return distance.argmin(1).reshape(height, width).astype(np.int32)


def _drawing_size(num_cells: int, grid: tuple[int, int]) -> tuple[int, int]:
    """4 x 4 pixels a patch, more where there are more cells than that."""
    rows, columns = grid
    scale = 4
    while rows * columns * scale * scale < num_cells and rows * scale < _MAX_MAP_PX:
        scale *= 2
    return rows * scale, columns * scale


def grid_partition(num_cells: int, grid: tuple[int, int]) -> np.ndarray:
    """The map of the partition 'grid' at its own size; with as many cells as patches these are the patches."""
    return grid_cells(num_cells, *_drawing_size(num_cells, grid))


@lru_cache(maxsize=32)
def static_partition(kind: str, num_cells: int, grid: tuple[int, int]) -> tuple[torch.Tensor, Regions]:
    """Overlap (R, K, N) and regions of the control `kind`: R is 1 for 'grid', RANDOM_PARTITIONS for 'random'.

    Drawn on a map of 4 x 4 pixels a patch, finer when there are more cells than that.
    """
    if kind == "grid":
        maps = grid_partition(num_cells, grid)[None]
    else:
        height, width = _drawing_size(num_cells, grid)
        maps = np.stack([random_cells(num_cells, height, width, seed) for seed in range(RANDOM_PARTITIONS)])
    with torch.inference_mode(False):  # kept: a tensor of inference mode could not be trained with later
        tensor = torch.from_numpy(maps)
        return overlap_matrix(tensor, grid, num_cells), measure_regions(tensor, num_cells)


def drawn_by_pixels(images: torch.Tensor) -> torch.Tensor:
    """(B,): which random partition each image gets, decided by its own pixels: one image always the same."""
    pixels = images if not images.is_floating_point() else (images.nan_to_num() * 256).round().long()
    return pixels.sum((1, 2, 3), dtype=torch.long) % RANDOM_PARTITIONS


@lru_cache(maxsize=32)
def patch_regions(grid: tuple[int, int]) -> Regions:
    """The patches themselves as regions (1, N, .), in raster order."""
    rows, columns = grid
    ids = np.arange(rows * columns, dtype=np.int32).reshape(1, rows, columns)
    return measure_regions(torch.from_numpy(ids), rows * columns)
