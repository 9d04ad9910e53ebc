"""Batched SLIC in torch: superpixels where the batch already is, without a step on the host.

Fixed iterations, dense products, no value read back: the same code runs on any device. Regions need not be connected:
a pass that joins fragments is sequential, and pooling does not need it. `pipeline.slic` gives connected regions.
"""

import functools

import numpy as np
import torch
from torch import Tensor

from .model_config import IMAGENET_MEAN, IMAGENET_STD
from .partitions import grid_cells

_AT_ONCE = 8  # images whose distances exist at the same time, so that memory does not grow with the batch


@torch.no_grad()
def slic(images: Tensor, tokens: int, *, compactness: float = 20.0, iterations: int = 10, reduce: int = 2) -> Tensor:
    """Superpixel maps (B, H / reduce, W / reduce), int64, of `images` (B, 3, H, W): ids 0..tokens-1, each present.

    Args:
        images: uint8 RGB, or float RGB in [0, 1] (`to_unit_range` undoes a normalisation).
        tokens: K, the number of regions of every image.
        compactness: weight of position against CIE Lab distance, per distance of one region. Fragments are not joined
            here, so more of it is needed than fast-slic's 10.
        iterations: rounds of assignment and means.
        reduce: images are averaged over squares of this many pixels first.

    Raises:
        ValueError: sides that are no multiple of `reduce`, or fewer pixels than regions.
    """
    height, width = (side // reduce for side in images.shape[-2:])
    if images.ndim != 4 or images.shape[1] != 3 or (height * reduce, width * reduce) != tuple(images.shape[-2:]):
        raise ValueError(f"images are {tuple(images.shape)}; slic takes (B, 3, H, W), H and W multiples of {reduce}")
    if not 1 <= tokens <= height * width or iterations < 1:
        raise ValueError(f"tokens is {tokens}, iterations {iterations}: use 1..{height * width} and 1 or more")
    unit = images.float() if images.is_floating_point() else images.float() / 255
    small = torch.nn.functional.avg_pool2d(unit, reduce)
    features = _features(small, compactness / (height * width / tokens) ** 0.5)
    cells = torch.from_numpy(_cells(tokens, height, width)).to(images.device)
    parts = [_assign(part, cells, tokens, iterations) for part in features.split(_AT_ONCE)]
    return torch.cat(parts).view(-1, height, width)


def to_unit_range(
    images: Tensor, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD
) -> Tensor:
    """Normalised float images (B, 3, H, W) as RGB in [0, 1]; uint8 images stay as they are."""
    if not images.is_floating_point():
        return images
    shift, scale = (torch.tensor(v, device=images.device).view(1, 3, 1, 1) for v in (mean, std))
    return (images.float() * scale + shift).clamp(0, 1)


def _features(rgb: Tensor, position: float) -> Tensor:
    """(B, P, 5): CIE Lab and weighted (y, x) of every pixel."""
    height, width = rgb.shape[-2:]
    y = torch.arange(height, device=rgb.device, dtype=rgb.dtype)[:, None].expand(height, width)
    x = torch.arange(width, device=rgb.device, dtype=rgb.dtype)[None].expand(height, width)
    place = (torch.stack([y, x]) * position).expand(rgb.shape[0], -1, -1, -1)
    return torch.cat([_lab(rgb), place], 1).flatten(2).transpose(1, 2)


def _lab(rgb: Tensor) -> Tensor:
    """sRGB in [0, 1] (B, 3, H, W) -> CIE Lab with white D65."""
    linear = torch.where(rgb > 0.04045, ((rgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    to_xyz = rgb.new_tensor(
        [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
    )
    xyz = torch.einsum("ij,bjhw->bihw", to_xyz / to_xyz.sum(1, keepdim=True), linear)
    f = torch.where(xyz > 0.008856, xyz.clamp(min=1e-6) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


@functools.lru_cache(maxsize=16)
def _cells(tokens: int, height: int, width: int) -> np.ndarray:
    """bool (K, P): the uniform cells that regions start from. An array: a cached tensor made while a model is exported
    would be a fake one, and stay.
    """
    return grid_cells(tokens, height, width).reshape(-1) == np.arange(tokens)[:, None]


def _assign(pixels: Tensor, cells: Tensor, tokens: int, iterations: int) -> Tensor:
    """(B, P, 5) -> ids (B, P). Centres start as the means of `cells`."""
    ids = torch.arange(tokens, device=pixels.device)
    member = cells.to(pixels.dtype).expand(pixels.shape[0], -1, -1)
    for _ in range(iterations):
        centres = member @ pixels / member.sum(2, keepdim=True)
        # |p - c|^2 without |p|^2, which is the same for all centres.
        distance = centres.square().sum(2, keepdim=True) - 2 * centres @ pixels.transpose(1, 2)
        labels = _pinned(distance, cells, ids)
        member = (labels[:, None] == ids[:, None]).to(pixels.dtype)
    return labels


def _pinned(distance: Tensor, cells: Tensor, ids: Tensor) -> Tensor:
    """Nearest centre of every pixel, but every region keeps the pixel of its own start cell that fits it best among the
    pixels there. Cells are disjoint, so no region can be empty. `distance` (B, K, P) lacks each pixel's own square,
    so a pixel's fit is taken against the best centre it could have.
    """
    best, labels = distance.min(1)
    pin = (distance - best[:, None]).masked_fill(~cells, float("inf")).argmin(2)
    return labels.scatter(1, pin, ids.expand(labels.shape[0], -1))
