"""Latents of a patched model: cells of a uniform grid, made from tokens without any weight."""

import torch
from torch import Tensor

from focusvit.model.partitions import rows_of_cells


def latent_weights(overlap: Tensor, grid: tuple[int, int], latents: int) -> Tensor:
    """(B, M, K): the share of each superpixel in each of M cells of the patch grid; rows sum to 1.

    `overlap` (B, K, N) is the share of superpixels in patches. A cell is made of whole patches, so with M = N = K and
    one superpixel per patch this is the identity.
    """
    cells = cells_on(overlap.device, latents, *grid).flatten()
    member = (torch.arange(latents, device=overlap.device)[:, None] == cells).to(overlap.dtype)
    return (member / member.sum(1, keepdim=True)) @ overlap.transpose(1, 2)


def cells_on(device: torch.device, num_cells: int, height: int, width: int) -> Tensor:
    """`partitions.grid_cells`, int64 (height, width), made on the device: one that is sent makes the host wait."""
    rows = rows_of_cells(num_cells, height, width)
    row = torch.arange(height, device=device)[:, None] * rows // height
    first = row * num_cells // rows
    count = (row + 1) * num_cells // rows - first
    return first + torch.arange(width, device=device) * count // width
