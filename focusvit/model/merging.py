"""Tokens that merge inside the trunk: neighbours by Ward's cost, for nested levels; and token merging, the control
without superpixels, where similar tokens are averaged a few at a time inside every block.

Ward's rule is that of the stored hierarchies (`pipeline.superpixels.merge_order`): of all neighbours, the two whose
union adds least to the squared error merge next. Here it runs for a whole batch in a fixed number of steps, on any
features.

Token merging is written from the idea of the paper (Bolya et al., "Token Merging: Your ViT But Faster"): split the
tokens in two sets by turns, link each token of the first set to its most similar one of the second (cosine of mean
keys), merge the strongest links as size-weighted means, and let attention count a token by its size.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .attention import Trace, attend
from .blocks import Block
from .config import FocusViTConfig
from .latents import pooled_regions
from .regions import Regions, full_precision


def merge_schedule(num_patches: int, tokens: int, depth: int) -> tuple[int, ...]:
    """How many tokens each of `depth` blocks merges away, as equal as possible, so that `tokens` remain.

    A block can at most halve its tokens, so for a small budget the first blocks merge more.
    """
    left, schedule = num_patches, []
    for i in range(depth):
        equal = -(-(left - tokens) // (depth - i))
        needed = left - tokens * 2 ** (depth - i - 1)
        schedule.append(max(0, min(max(equal, needed), left // 2)))
        left -= schedule[-1]
    if left != tokens:
        raise ValueError(f"{depth} blocks cannot merge {num_patches} tokens down to {tokens}; {left} would remain")
    return tuple(schedule)


def merge_most_similar(x: Tensor, size: Tensor, keys: Tensor, num_merged: int, first: int) -> tuple[Tensor, Tensor]:
    """(B, n, D), (B, n, 1) sizes -> (B, n - num_merged, D) and sizes. The first `first` tokens (class) are kept.

    `keys` (B, n, d) say what is similar. The order of the surviving tokens changes; the size-weighted mean does not.
    """
    if num_merged == 0:
        return x, size
    keys = functional.normalize(keys[:, first:], dim=-1)
    score, target = (keys[:, ::2] @ keys[:, 1::2].transpose(1, 2)).max(-1)
    if torch.compiler.is_exporting():  # ONNX has no stable sort; its TopK puts the lower index first on a tie too
        order = score.topk(score.shape[1], dim=1).indices
    else:
        order = score.argsort(dim=1, descending=True, stable=True)
    merged, kept = order[:, :num_merged], order[:, num_merged:]
    target = target.gather(1, merged)

    def reduce(values: Tensor) -> Tensor:
        """Sums of the merged groups: kept tokens of the first set, then the second set with what joined it."""
        even, odd = values[:, first::2], values[:, first + 1 :: 2]
        width = values.shape[-1]
        joined = even.gather(1, merged[..., None].expand(-1, -1, width))
        if torch.compiler.is_exporting():  # the same sums without a scatter, as in `regions`
            links = target[:, None] == torch.arange(odd.shape[1], device=odd.device)[:, None]
            odd = odd + links.to(values.dtype) @ joined
        else:
            odd = odd.scatter_add(1, target[..., None].expand(-1, -1, width), joined)
        rest = even.gather(1, kept[..., None].expand(-1, -1, width))
        return torch.cat([values[:, :first], rest, odd], 1)

    new_size = reduce(size)
    return reduce(x * size) / new_size, new_size


def merging_trunk(
    blocks: nn.ModuleList, x: Tensor, tokens: int, first: int, trace: Trace = None
) -> tuple[Tensor, Tensor]:
    """Blocks that merge N down to `tokens`, some of them between their attention and their MLP: (B, first + tokens, D),
    and each token's share of patches (B, tokens)."""
    size = x.new_ones(x.shape[0], x.shape[1], 1)
    for block, num_merged in zip(blocks, merge_schedule(x.shape[1] - first, tokens, len(blocks))):
        assert isinstance(block, Block)
        q, k, v = block.attn.split(block.attn.qkv(block.norm1(x)))
        bias = size.log().transpose(1, 2)[:, None].to(q.dtype)
        x = x + block.drop_path(block.attn.merge(attend(q, k, v, bias, trace)))
        x, size = merge_most_similar(x, size, k.mean(1), num_merged, first)
        x = x + block.drop_path(block.mlp(block.norm2(x)))
    weight = size[:, first:, 0]
    return x, weight / weight.sum(1, keepdim=True)


class Levels:
    """The further levels of one forward (`FocusViTConfig.then`)."""

    def __init__(self, config: FocusViTConfig, maps: Tensor | None, first: int) -> None:
        self.budgets = dict(config.then) if maps is not None else {}
        self.maps, self.first = maps, first
        self.weights: dict[int, Tensor] = {}
        """by block: (B, K', K) rows that sum to 1 and share by area, the means that make the tokens of a level"""
        self.near: Tensor | None = None

    def begins(self, number: int, regions: Regions) -> bool:
        """Whether a level with fewer tokens begins before this block."""
        return self.budgets.get(number, regions.area.shape[1]) < regions.area.shape[1]

    def merge(self, number: int, block: nn.Module, x: Tensor, regions: Regions) -> tuple[Tensor, Regions]:
        """Tokens (B, first + K, D) -> (B, first + K', D) and where they lie: touching tokens merge by the likeness of
        the keys that `block` makes of them."""
        assert isinstance(block, Block) and self.maps is not None
        if self.near is None:
            self.near = touching(self.maps, regions.area.shape[1])
        keys = block.attn.split(block.attn.qkv(block.norm1(x[:, self.first :])))[1].transpose(1, 2).flatten(2)
        unit = functional.normalize(keys.detach().float(), dim=2)
        tokens = self.budgets[number]
        (label,) = ward(unit, regions.area, self.near, [tokens])
        member = (label[:, None] == torch.arange(tokens, device=x.device)[:, None]).to(regions.area.dtype)
        self.near = (member @ self.near.to(member.dtype) @ member.transpose(1, 2)) > 0
        shares = member * regions.area[:, None]
        self.weights[number] = weights = shares / shares.sum(2, keepdim=True)
        x = torch.cat([x[:, : self.first], weights.to(x.dtype) @ x[:, self.first :]], 1)
        return x, pooled_regions(weights, regions)


def of_first_level(seen: dict[str, Any], rows: Tensor) -> Tensor:
    """(B, K', D) of the last level -> (B, K, D): each superpixel has the row of the union it lies in."""
    for weights in reversed(seen.get("levels", {}).values()):
        rows = (weights > 0).to(rows.dtype).transpose(1, 2) @ rows
    return rows


@torch.no_grad()
def ward(features: Tensor, area: Tensor, neighbours: Tensor, budgets: Sequence[int]) -> list[Tensor]:
    """Labels of R regions after merging neighbours until so many are left, for each of `budgets`.

    features (B, R, F): the mean of each region. area (B, R): its weight. neighbours (B, R, R) bool, symmetric. Returns
    int64 (B, R) for each budget, ids 0..budget-1, each present; smaller budgets are unions of larger ones.

    Raises ValueError for budgets that do not fall, or lie outside 1..R.
    """
    num_regions = features.shape[1]
    if (
        not budgets
        or min(budgets) < 1
        or list(budgets) != sorted(set(budgets), reverse=True)
        or budgets[0] > num_regions
    ):
        raise ValueError(f"budgets are {tuple(budgets)}; they must fall from at most {num_regions} to at least 1")
    if features.device.type == "cpu" and not torch.compiler.is_compiling() and find_spec("numba"):
        return _ward_by_loop(features.float(), area.float(), neighbours, budgets)
    with full_precision(features):
        return _ward(features.float(), area.float(), neighbours, budgets)


def _ward_by_loop(features: Tensor, area: Tensor, neighbours: Tensor, budgets: Sequence[int]) -> list[Tensor]:
    from pipeline.superpixels.ward_loop import merge_regions  # numba is no part of what the model alone needs

    wanted = np.array(budgets)
    images = zip(*(part.numpy().copy() for part in (features, area.expand(len(features), -1), neighbours)))
    found = torch.from_numpy(np.stack([merge_regions(mean, size, near, wanted) for mean, size, near in images]))
    return list(found.unbind(1))


def _ward(features: Tensor, area: Tensor, neighbours: Tensor, budgets: Sequence[int]) -> list[Tensor]:
    batch, count = torch.arange(features.shape[0], device=features.device), features.shape[1]
    mean, area = features.clone(), area.clone()
    ids = torch.arange(count, device=features.device)
    near = neighbours & (ids[:, None] != ids)
    label = ids.expand(len(batch), -1).clone()
    cost = torch.full(near.shape, torch.inf, device=features.device)
    for index in range(count):  # one by one, so that no (B, R, R, F) exists
        cost[:, index] = _cost(mean[:, index], area[:, index], mean, area, near[:, index])
    found = []
    for budget in budgets:
        for _ in range(count - budget):
            best = cost.flatten(1).argmin(1)
            one, other = best // near.shape[1], best % near.shape[1]
            kept, gone = torch.minimum(one, other), torch.maximum(one, other)
            both = area[batch, kept] + area[batch, gone]
            share = (area[batch, gone] / both)[:, None]
            mean[batch, kept] = mean[batch, kept] * (1 - share) + mean[batch, gone] * share
            area[batch, kept] = both
            row = near[batch, kept] | near[batch, gone]
            row[batch, kept], row[batch, gone] = False, False
            near[batch, gone], near[batch, :, gone] = False, False
            near[batch, kept], near[batch, :, kept] = row, row
            cost[batch, gone], cost[batch, :, gone] = torch.inf, torch.inf
            fresh = _cost(mean[batch, kept], both, mean, area, row)
            cost[batch, kept], cost[batch, :, kept] = fresh, fresh
            label = torch.where(label == gone[:, None], kept[:, None], label)
        count = budget
        alive = torch.zeros_like(label).scatter_(1, label, 1)
        found.append((alive.cumsum(1) - 1).gather(1, label))
    return found


def _cost(mean: Tensor, area: Tensor, means: Tensor, areas: Tensor, near: Tensor) -> Tensor:
    """Ward's cost of joining one region (B, F) of `area` (B,) with each of (B, R, F), infinite where they do not
    touch."""
    weight = area[:, None] * areas / (area[:, None] + areas).clamp(min=1e-12)
    return torch.where(near, weight * (means - mean[:, None]).square().sum(2), torch.inf)


@torch.no_grad()
def touching(maps: Tensor, num_regions: int) -> Tensor:
    """bool (B, R, R): which regions of (B, H, W) maps have pixels next to each other, 4-neighbourhood, symmetric."""
    found = torch.zeros(maps.shape[0], num_regions * num_regions, dtype=torch.bool, device=maps.device)
    for one, other in ((maps[:, :, 1:], maps[:, :, :-1]), (maps[:, 1:], maps[:, :-1])):
        slot = (one.long() * num_regions + other.long()).flatten(1)
        found.scatter_(1, slot, torch.ones_like(slot, dtype=torch.bool))
    found = found.view(-1, num_regions, num_regions)
    return found | found.transpose(1, 2)
