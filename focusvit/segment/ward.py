"""Regions that merge on the batch's own device, by Ward's cost: nested token budgets without a step on the host.

The rule is that of the stored hierarchies (`pipeline.superpixels.merge_order`): of all neighbours, the two whose union
adds least to the squared error merge next. Here it runs for a whole batch in a fixed number of steps, on any features.
"""

from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from focusvit.model.regions import full_precision

from .cells import spacing
from .slic import slic
from .torch_slic import lab_of

_SPATIAL_WEIGHT = 4.0  # a distance of one region counts as so many CIE units, as in `SuperpixelConfig`


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
    from .ward_loop import merge_regions  # numba is no part of what the model alone needs

    wanted = np.array(budgets)
    images = zip(*(part.numpy().copy() for part in (features, area.expand(len(features), -1), neighbours)))
    found = torch.from_numpy(np.stack([merge_regions(*image, wanted) for image in images]))
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


@torch.no_grad()
def slic_levels(images: Tensor, budgets: Sequence[int]) -> list[Tensor]:
    """One map (B, h, w) for each of the falling `budgets`: `slic` at the largest, whose regions then merge by colour
    and place. `images` as for `slic`.
    """
    finest = slic(images, budgets[0])
    return [finest, *merged_levels(images, finest, budgets)]


@torch.no_grad()
def merged_levels(images: Tensor, finest: Tensor, budgets: Sequence[int]) -> list[Tensor]:
    """The maps of `budgets[1:]`: regions of `finest` (B, h, w), which has budgets[0], merge by colour and place."""
    if len(budgets) == 1:
        return []
    lab = lab_of(images, (finest.shape[1], finest.shape[2]))
    batch, (height, width) = len(finest), finest.shape[1:]
    weight = _SPATIAL_WEIGHT / spacing(budgets[0], height, width)
    y = torch.arange(height, device=lab.device)[:, None].expand(height, width) * weight
    x = torch.arange(width, device=lab.device).expand(height, width) * weight
    values = torch.cat([lab, torch.stack([y, x]).expand(batch, -1, -1, -1)], 1).flatten(2).transpose(1, 2)
    ids = finest.flatten(1).long()
    area = torch.zeros(batch, budgets[0], device=lab.device).scatter_add_(1, ids, values.new_ones(ids.shape))
    sums = torch.zeros(batch, budgets[0], values.shape[2], device=lab.device)
    sums.scatter_add_(1, ids[..., None].expand_as(values), values)
    labels = ward(sums / area.clamp(min=1)[..., None], area, touching(finest, budgets[0]), budgets[1:])
    return [label.gather(1, ids).view_as(finest).to(finest.dtype) for label in labels]
