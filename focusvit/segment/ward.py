"""Regions that merge on the batch's own device, by Ward's cost: nested token budgets without a step on the host.

The rule (`focusvit.model.merging.ward`) is that of the stored hierarchies.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from focusvit.model.merging import touching, ward

from .cells import spacing
from .slic import slic
from .torch_slic import lab_of

_SPATIAL_WEIGHT = 4.0  # a distance of one region counts as so many CIE units, as in `SuperpixelConfig`


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
