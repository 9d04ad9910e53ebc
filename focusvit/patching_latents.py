"""Latents of a patched model: cells of a uniform grid, made from tokens without any weight."""

import torch
from torch import Tensor

from .partitions import grid_cells


def latent_weights(overlap: Tensor, grid: tuple[int, int], latents: int) -> Tensor:
    """(B, M, K): the share of each superpixel in each of M cells of the patch grid; rows sum to 1.

    `overlap` (B, K, N) is the share of superpixels in patches. A cell is made of whole patches, so with M = N = K and
    one superpixel per patch this is the identity.
    """
    cells = torch.from_numpy(grid_cells(latents, *grid)).flatten().to(overlap.device)
    member = (torch.arange(latents, device=overlap.device)[:, None] == cells).to(overlap.dtype)
    return (member / member.sum(1, keepdim=True)) @ overlap.transpose(1, 2)
