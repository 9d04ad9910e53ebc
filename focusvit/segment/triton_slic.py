"""Batched SLIC in Triton: one program for an image and a cell, whose pixels stay in registers from load to store.

The arithmetic is that of `torch_slic`: the same features, the same centres (means rounded once), the same distance
|c|^2 - 2 c p, the first of equal candidates. Sums run in another order and powers are exp2 of log2, so that distances
differ by their rounding: a pixel gets another region than in torch only where two centres are equally far up to that,
and what follows from such a pixel in later rounds. Where sums and distances are exact (small whole numbers), labels are
the same bits.

A round reads CIE Lab once (3 floats a pixel) and nine centres a program, and writes six sums for each of the nine: a
second kernel adds these up in a fixed order, without atomics, so that an image gets the same map every time. The last
round writes the labels alone.
"""

from contextlib import nullcontext
from typing import Any

import torch
import triton
from torch import Tensor

from .cells import Layout, layout_on, map_dtype, map_size, spacing
from .triton_kernels import assign_kernel, centres_kernel, lab_kernel, reduce_kernel

LARGEST_CELL_PX = 4096
# Pixels a thread: as many as registers hold, for the fewest steps of the sums across threads.
_ASSIGN_PER_THREAD, _LAB_PER_THREAD = 8, 2
_PIXELS_AT_ONCE = 1024
_CENTRES_AT_ONCE = 64
_MOST_REGISTERS = 128  # a thread of `assign_kernel`: none spills, and 16 programs of one warp share a multiprocessor
_ROUNDED = {"enable_fp_fusion": False}  # each product, as on a CPU: what the interpreter proves is what runs


@torch.no_grad()
def triton_slic(
    images: Tensor, tokens: int, *, compactness: float = 15.0, iterations: int = 10, reduce: int = 2
) -> Tensor:
    """`slic.slic` by kernels, on a GPU, or on a CPU by Triton's interpreter (TRITON_INTERPRET=1).

    Raises:
        NotImplementedError: cells of more than LARGEST_CELL_PX pixels of the map.
    """
    height, width = map_size(images, tokens, iterations, reduce)
    layout = layout_on(images.device, tokens, height, width)
    most = layout.order.numel() // tokens
    if most > LARGEST_CELL_PX:
        raise NotImplementedError(
            f"{tokens} regions of a map of {height}x{width} pixels are larger than a program holds"
        )
    with torch.cuda.device(images.device) if images.is_cuda else nullcontext():
        lab = lab_by_cell(images, layout, reduce)
        return assigned(lab, layout, compactness / spacing(tokens, height, width), iterations, (height, width))


def lab_by_cell(images: Tensor, layout: Layout, reduce: int) -> Tensor:
    """(B, K, 3, m): CIE Lab of the reduced and smoothed images, cell by cell as `Layout` orders them. Places without a
    pixel hold anything.
    """
    tokens, most = len(layout.near), layout.order.numel() // len(layout.near)
    height, width = images.shape[2] // reduce, images.shape[3] // reduce
    small = torch.empty(len(images), 3, height, width, device=images.device)
    reduce_kernel[(len(images) * 3, triton.cdiv(height * width, _PIXELS_AT_ONCE))](
        images, small, height, width, *images.stride(),
        REDUCE=reduce, UNIT=images.is_floating_point(), BLOCK=_PIXELS_AT_ONCE, **_ROUNDED,
    )  # fmt: skip
    lab = torch.empty(len(images), tokens, 3, most, device=images.device)
    lab_kernel[(len(images) * tokens,)](
        small, layout.box, lab, tokens, height, width, most, **_block(most, _LAB_PER_THREAD)
    )
    return lab


def assigned(lab: Tensor, layout: Layout, position: float, iterations: int, size: tuple[int, int]) -> Tensor:
    """Maps (B, h, w) from (B, K, 3, m) after so many rounds. `position` is the weight of a pixel's (y, x)."""
    batch, tokens, _, most = lab.shape
    num_near, num_into = layout.near.shape[1], layout.into.shape[1]
    queries = torch.empty(batch, tokens, 6, device=lab.device)
    parts = torch.empty(batch, tokens, num_near, 6, device=lab.device)
    maps = torch.empty(batch, *size, dtype=map_dtype(tokens), device=lab.device)
    for round_ in range(iterations + 1):  # before the first, the sums of the cells
        if round_:
            centres_kernel[(batch, triton.cdiv(tokens, _CENTRES_AT_ONCE))](
                parts, layout.into, queries, tokens,
                NEAR=num_near, INTO=num_into, BLOCK=_CENTRES_AT_ONCE, num_warps=2, **_ROUNDED,
            )  # fmt: skip
        assign_kernel[(batch * tokens,)](
            lab, layout.box, layout.near, queries, parts, maps, tokens, *size, most, position,
            NEAR=num_near, FIRST=round_ == 0, LAST=round_ == iterations,
            maxnreg=_MOST_REGISTERS, **_block(most, _ASSIGN_PER_THREAD),
        )  # fmt: skip
    return maps


def _block(most: int, per_thread: int) -> dict[str, Any]:
    """Of one program: lanes for all pixels of a cell, in warps of 32 threads."""
    lanes = max(32, triton.next_power_of_2(most))
    return {"BLOCK": lanes, "num_warps": min(32, max(1, lanes // (32 * per_thread))), **_ROUNDED}
