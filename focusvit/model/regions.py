"""From integer superpixel maps to what the model needs: overlap with the patches, centre, area and covariance.

Everything here is counted in integers, so it is exact and the same on every device. Shapes are static and nothing is
read back to the host. Values of a map are checked at the boundary (`inputs.check_values`), never inside forward.

Counts are integer scatters, except while torch.export looks: then they are products of one-hot masks with constants
(`membership_sums`), the same whole numbers without a scatter, which deployed runtimes lack or run in any order.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


def full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """Inside, products keep the precision of their factors, under autocast and where TF32 is allowed too: what is a
    difference of nearly equal numbers is lost in either.

    TF32 is forbidden as long as Python is inside. The backward pass and a compiled graph run later: factors of theirs
    are made `exact` before.
    """
    if x.device.type == "meta":  # a tensor without data knows no autocast
        return nullcontext()
    if x.device.type in TF32_DEVICES and not torch.compiler.is_compiling():
        return _without_tf32(x.device.type)
    return torch.autocast(x.device.type, enabled=False)


TF32_DEVICES = ("cuda",)
"""where a float32 product may be rounded to TF32: by this program, or by a user's `set_float32_matmul_precision`"""


@contextmanager
def _without_tf32(device_type: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def exact(x: Tensor) -> Tensor:
    """A factor of products that may not be rounded, whenever they run: in float64 where float32 may mean TF32."""
    may_round = x.device.type in TF32_DEVICES and torch.backends.cuda.matmul.allow_tf32
    return x.double() if may_round else x


class Regions(NamedTuple):
    """Where the regions of an image lie. It travels beside the tokens as an argument; order is never implied."""

    area: Tensor
    """(B, K) share of the image, 0 for an empty slot."""
    centre: Tensor
    """(B, K, 2) mean position (y, x), each in [0, 1]."""
    covariance: Tensor
    """(B, K, 3) variance of y, variance of x, covariance, in units of the image's sides."""

    def log_relative_area(self) -> Tensor:
        """(B, K) log of area over the mean area of the image's regions; very low for empty slots."""
        valid = self.area > 0
        mean = 1.0 / valid.sum(1, keepdim=True).clamp(min=1)
        return torch.where(valid, torch.log(self.area.clamp(min=1e-9) / mean), EMPTY_BIAS)


EMPTY_BIAS = -1e9
"""Added to the attention logit of an empty slot: its weight is then exactly 0. Finite, so that no NaN can arise."""


class HeldRegions(nn.Module):
    """Regions that follow from the config alone, kept where the model is."""

    area: Tensor
    centre: Tensor
    covariance: Tensor

    def __init__(self, regions: Regions) -> None:
        super().__init__()
        for name, value in regions._asdict().items():
            self.register_buffer(name, value.clone(), persistent=False)

    def forward(self) -> Regions:
        return Regions(self.area, self.centre, self.covariance)


def overlap_matrix(maps: Tensor, grid: tuple[int, int], num_tokens: int) -> Tensor:
    """O[b, k, j] = |S_k n P_j| / |P_j|, the share of patch j that region k covers: (B, Hm, Wm) -> (B, K, N) float32.

    The map may have any resolution that is a multiple of the patch grid. Columns sum to 1 (the paper's overlap).
    """
    B, height, width = maps.shape
    rows, columns = grid
    patch_of_row = torch.arange(height, device=maps.device) // (height // rows)
    patch_of_column = torch.arange(width, device=maps.device) // (width // columns)
    if torch.compiler.is_exporting():
        in_column = (patch_of_column[:, None] == torch.arange(columns, device=maps.device)).float()
        counts = membership_sums(maps, num_tokens, in_column)
        counts = counts.view(B, num_tokens, rows, height // rows, columns).sum(3)
        return counts.flatten(2) / ((height * width) // (rows * columns))
    patch = (patch_of_row[:, None] * columns + patch_of_column).flatten()
    slot = maps.flatten(1).long() * (rows * columns) + patch
    counts = torch.zeros(B, num_tokens * rows * columns, device=maps.device)
    # Whole numbers below 2^24 in float32: the sum is exact in any order.
    counts.scatter_add_(1, slot, counts.new_ones(1).expand_as(slot))
    pixels_per_patch = (height * width) // (rows * columns)
    return counts.view(B, num_tokens, rows * columns) / pixels_per_patch


def measure_regions(maps: Tensor, num_tokens: int) -> Regions:
    """Area, centre and covariance of each region of (B, Hm, Wm) maps, a pixel being a square and not a point.

    So a square cell of side s has variance s^2 / 12 on each axis at any map resolution, and a one-pixel region is not
    degenerate. Sums are integers; the differences that follow are taken in float64.
    """
    height, width = maps.shape[1:]
    sums = _moments_without_scatter if torch.compiler.is_exporting() else _moments
    count, sum_y, sum_x, sum_yy, sum_xx, sum_yx = sums(maps, num_tokens)
    present = count.clamp(min=1)
    mean_y, mean_x = sum_y / present, sum_x / present
    variance_y = sum_yy / present - mean_y**2 + 1 / 12
    variance_x = sum_xx / present - mean_x**2 + 1 / 12
    covariance = sum_yx / present - mean_y * mean_x
    return Regions(
        area=(count / (height * width)).float(),
        centre=torch.stack([(mean_y + 0.5) / height, (mean_x + 0.5) / width], -1).float(),
        covariance=torch.stack(
            [variance_y / height**2, variance_x / width**2, covariance / (height * width)], -1
        ).float(),
    )


def _moments(maps: Tensor, num_tokens: int) -> list[Tensor]:
    """Sums over the pixels of each region of 1, y, x, y^2, x^2 and y x: six of (B, K), float64, whole numbers."""
    B, height, width = maps.shape
    ids = maps.flatten(1).long()
    y = torch.arange(height, device=maps.device)[:, None].expand(height, width).flatten()
    x = torch.arange(width, device=maps.device)[None].expand(height, width).flatten()
    sums = []
    for values in (torch.ones_like(y), y, x, y * y, x * x, y * x):
        total = torch.zeros(B, num_tokens, dtype=torch.long, device=maps.device)
        sums.append(total.scatter_add_(1, ids, values.expand_as(ids)).double())
    return sums


def _moments_without_scatter(maps: Tensor, num_tokens: int) -> list[Tensor]:
    """The same six sums. Along a row float32 holds them (below 2^24 up to width 368); across rows float64."""
    _, height, width = maps.shape
    y = torch.arange(height, device=maps.device, dtype=torch.float64)
    x = torch.arange(width, device=maps.device, dtype=torch.float32 if width <= 368 else torch.float64)
    count, sum_x, sum_xx = membership_sums(maps, num_tokens, torch.stack([x**0, x, x * x], 1)).double().unbind(3)
    return [count.sum(2), count @ y, sum_x.sum(2), count @ (y * y), sum_xx.sum(2), sum_x @ y]


def membership_sums(maps: Tensor, num_tokens: int, values: Tensor) -> Tensor:
    """Sums of `values` (W, c) over the pixels of each region in each row of (B, H, W) maps: (B, K, H, c)."""
    return one_hot(maps, num_tokens).to(values.dtype) @ values


def one_hot(maps: Tensor, num_tokens: int) -> Tensor:
    """Whether each pixel of (B, H, W) maps belongs to each region: bool (B, K, H, W)."""
    # In the maps' own type, which is the fastest to compare, unless it cannot count so far.
    dtype = maps.dtype if num_tokens - 1 <= torch.iinfo(maps.dtype).max else torch.long
    ids = torch.arange(num_tokens, device=maps.device, dtype=dtype)
    return maps[:, None] == ids[:, None, None]


def harden(overlap: Tensor, centre: Tensor) -> Tensor:
    """(B, K, N) overlap -> 0/1 membership: each patch joins its largest region, and a region that wins no patch joins
    its best one, which it then shares. So no region that holds a pixel is left empty, also for K > N.

    Of equally large regions the one whose centre lies further up and left wins: ids mean nothing.
    """
    K, N = overlap.shape[1:]
    # Smaller than any true difference (one pixel of a patch), larger than float32's rounding.
    tie = 1e-4 * (centre[..., 0] + 0.618 * centre[..., 1]) / 2
    ids = torch.arange(K, device=overlap.device)
    member = (overlap - tie[..., None]).argmax(1)[:, None, :] == ids[:, None]
    best = overlap.argmax(2)[:, :, None] == torch.arange(N, device=overlap.device)
    held = overlap > 0
    lost = ~(member & held).any(2, keepdim=True) & held.any(2, keepdim=True)
    return ((member & held) | (best & lost)).to(overlap.dtype)
