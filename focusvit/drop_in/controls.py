"""Other ways to spend fewer tokens in the same host, as functions for `patch(merge=...)`: token merging, a uniform
grid."""

import torch
from torch import Tensor

from .pooling import Level, cells_on


@torch.no_grad()
def bipartite(keys: Tensor, before: Level | None, grid: tuple[int, int], tokens: int) -> Level:
    """Token merging (Bolya et al. 2023): every other token may join the most similar of the rest; the most similar do.

    Written from the paper: cosine of keys, alternating sets, the r best edges merge, means weighted by size. Merging
    happens at the entry of a block instead of behind its attention. Raises ValueError for more than half at once.
    """
    batch, count = keys.shape[:2]
    if count - tokens > (count + 1) // 2:
        raise ValueError(f"token merging takes at most half of {count} tokens away at once, and {tokens} are wanted")
    device = keys.device
    overlap = torch.eye(count, device=device).expand(batch, -1, -1) if before is None else before.overlap
    area, unit = overlap.sum(2), torch.nn.functional.normalize(keys.float(), dim=2)
    give, take = unit[:, ::2], unit[:, 1::2]
    best, into = (give @ take.transpose(1, 2)).max(2)
    gone = best.argsort(1, descending=True)[:, : count - tokens]
    member = torch.eye(count, device=device).repeat(batch, 1, 1)
    rows = torch.arange(batch, device=device)[:, None]
    source, target = gone * 2, into.gather(1, gone) * 2 + 1
    member[rows, source, source] = 0.0
    member[rows, target, source] = 1.0
    alive = torch.ones(batch, count, device=device).scatter_(1, source, 0.0)
    kept = alive.sort(dim=1, descending=True, stable=True).indices[
        :, :tokens
    ]  # so many there are: no wait for a device
    member = member.gather(1, kept[..., None].expand(-1, -1, count))
    shares = member * area[:, None]
    wide = (-1, -1, overlap.shape[2])
    moved = overlap.gather(1, source[..., None].expand(*wide))  # rows that move: a product would cost a tenth of a ViT
    joined = overlap.scatter_add(1, target[..., None].expand(*wide), moved).gather(1, kept[..., None].expand(*wide))
    return Level(shares / shares.sum(2, keepdim=True), joined)


def merging_levels(num_patches: int, tokens: int, blocks: int) -> dict[int, int]:
    """{block: tokens}: the same number fewer before every block, until `tokens` enter the last one."""
    levels = {block: num_patches - (num_patches - tokens) * (block + 1) // blocks for block in range(blocks)}
    return {block: count for block, count in levels.items() if count < levels.get(block - 1, num_patches)}


def uniform(keys: Tensor, before: Level | None, grid: tuple[int, int], tokens: int) -> Level:
    """The cells of a uniform grid, each made of whole patches; a further level shares out those of the one before."""
    cells = cells_on(keys.device, tokens, *grid).flatten()
    member = (torch.arange(tokens, device=keys.device)[:, None] == cells).to(torch.float32)
    overlap = member.expand(keys.shape[0], -1, -1)
    shares = overlap if before is None else overlap @ before.overlap.transpose(1, 2)
    return Level(shares / shares.sum(2, keepdim=True).clamp(min=1e-6), overlap)
