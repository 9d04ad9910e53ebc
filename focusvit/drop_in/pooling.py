"""What one forward of a patched model knows: how patches become tokens, how large these are, and where they lie.

Letters: N patches, K tokens of the present level, M latents. An area is counted in patches, so one region a patch has
area 1, whose log adds nothing to a key.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from focusvit.model.merging import ward
from focusvit.model.partitions import rows_of_cells
from focusvit.model.regions import overlap_matrix


@dataclass(frozen=True)
class Level:
    """Tokens of one depth."""

    weights: Tensor
    """(B, K, R) float32: the mean that makes each token out of the R tokens (or patches) of the level before"""
    overlap: Tensor
    """(B, K, N) float32: the share of each patch that lies in each token; columns sum to 1"""
    cells: Tensor | None = None
    """(B, M, K): the mean that makes latents of tokens"""
    cell_area: Tensor | None = None
    """(M,) in patches"""

    @property
    def area(self) -> Tensor:
        """(B, K) in patches."""
        return self.overlap.sum(2)

    def pool(self, x: Tensor) -> Tensor:
        """(B, prefix + R, D) -> (B, prefix + K, D)."""
        first = x.shape[1] - self.weights.shape[2]
        return torch.cat([x[:, :first], self.weights.to(x.dtype) @ x[:, first:]], 1)

    def unpool(self, x: Tensor) -> Tensor:
        """(B, prefix + K, D) -> (B, prefix + N, D): each patch gets its tokens by the share that lies in it."""
        first = x.shape[1] - self.overlap.shape[1]
        return torch.cat([x[:, :first], self.overlap.transpose(1, 2).to(x.dtype) @ x[:, first:]], 1)

    def latents(self, x: Tensor) -> Tensor:
        """(B, prefix + K, D) -> (B, prefix + M, D): what keys and values are made of."""
        assert self.cells is not None
        first = x.shape[1] - self.cells.shape[2]
        return torch.cat([x[:, :first], self.cells.to(x.dtype) @ x[:, first:]], 1)

    def key_bias(self, like: Tensor, prefix: int) -> Tensor:
        """(B, prefix + K or M): log of the patches behind each key, 0 for class token and registers.

        A mean of n equal patches then draws as much attention as these did (proportional attention; Bolya et al. 2023).
        """
        area = self.area if self.cell_area is None else self.cell_area.expand(self.area.shape[0], -1)
        bias = torch.log(area.clamp(min=1e-6)).to(like.dtype)
        return torch.cat([bias.new_zeros(bias.shape[0], prefix), bias], 1)

    def centre(self, grid: tuple[int, int]) -> Tensor:
        """(B, K, 2): mean (y, x) of each token in units of patches."""
        rows, columns = grid
        place = torch.arange(rows * columns, device=self.overlap.device)
        at = torch.stack([place // columns, place % columns], 1).to(self.overlap.dtype)
        return self.overlap @ at / self.area.clamp(min=1e-6)[..., None]


def check_maps(maps: list[Tensor], budgets: tuple[int, ...], batch: int) -> None:
    """Raises ValueError for maps of another batch, of too few levels, or (on a CPU) with ids beyond the budget."""
    if len(maps) != len(budgets) or any(len(labels) != batch for labels in maps):
        raise ValueError(
            f"{len(maps)} maps for {[len(labels) for labels in maps]} images; {batch} images at {len(budgets)} levels "
            f"need one map (B, Hm, Wm) for each level"
        )
    for labels, tokens in zip(maps, budgets):
        if labels.device.type == "cpu" and not torch.compiler.is_compiling() and labels.numel():
            most = int(labels.max())  # on a GPU this would make the host wait
            if most >= tokens:
                raise ValueError(
                    f"a map holds region {most}, and the model is patched for {tokens} tokens (ids from 0)"
                )


def from_maps(maps: Sequence[Tensor], budgets: Sequence[int], grid: tuple[int, int]) -> list[Level]:
    """A level for each map, (B, Hm, Wm) integers whose sides are multiples of the patch grid.

    A map that is a union of the one before gives whole tokens to its tokens; another one shares them by area.

    Raises ValueError for a map of another shape or type.
    """
    found: list[Level] = []
    for number, (labels, tokens) in enumerate(zip(maps, budgets)):
        if labels.ndim != 3 or labels.is_floating_point() or labels.shape != maps[0].shape or _misfit(labels, grid):
            raise ValueError(
                f"maps are {labels.dtype} {tuple(labels.shape)}; they must be integers (B, Hm, Wm), Hm a multiple of "
                f"{grid[0]} and Wm of {grid[1]} (the patch grid), all levels alike"
            )
        overlap = overlap_matrix(labels, grid, tokens)
        shares = overlap if not number else _contacts(labels, maps[number - 1], tokens, budgets[number - 1])
        found.append(Level(shares / shares.sum(2, keepdim=True).clamp(min=1e-6), overlap))
    return found


def from_features(x: Tensor, before: Level | None, grid: tuple[int, int], tokens: int) -> Level:
    """Neighbours of the level before (patches at first) merge by the likeness of their features until `tokens` are
    left.

    x (B, R, D): the features that decide, one row for each token of the level before, compared by direction. Token
    merging (Bolya et al. 2023) held to regions that touch, by Ward's cost.
    """
    count = grid[0] * grid[1]
    touch = _grid_neighbours(grid, x.device).expand(x.shape[0], -1, -1)
    area = torch.ones(x.shape[0], count, device=x.device)
    if before is not None:
        touch = (before.overlap @ touch.float() @ before.overlap.transpose(1, 2)) > 0
        area = before.area
    features = torch.nn.functional.normalize(x.detach().float(), dim=2)
    (label,) = ward(features, area, touch, [tokens])
    member = (label[:, None] == torch.arange(tokens, device=x.device)[:, None]).to(area.dtype)
    shares = member * area[:, None]
    overlap = member if before is None else member @ before.overlap
    return Level(shares / shares.sum(2, keepdim=True), overlap)


def grid_cells(overlap: Tensor, grid: tuple[int, int], latents: int) -> tuple[Tensor, Tensor]:
    """(B, M, K): the share of each token in each of M cells of the patch grid, rows sum to 1; (M,): their areas.

    A cell is made of whole patches, so with M = N = K and one superpixel per patch this is the identity.
    """
    cells = cells_on(overlap.device, latents, *grid).flatten()
    member = (torch.arange(latents, device=overlap.device)[:, None] == cells).to(overlap.dtype)
    area = member.sum(1)
    return (member / area[:, None]) @ overlap.transpose(1, 2), area


def cells_on(device: torch.device, num_cells: int, height: int, width: int) -> Tensor:
    """`partitions.grid_cells`, int64 (height, width), made on the device: one that is sent makes the host wait."""
    rows = rows_of_cells(num_cells, height, width)
    row = torch.arange(height, device=device)[:, None] * rows // height
    first = row * num_cells // rows
    count = (row + 1) * num_cells // rows - first
    return first + torch.arange(width, device=device) * count // width


def turned(table: Tensor, centre: Tensor, grid: tuple[int, int]) -> Tensor:
    """Rotary angles at the centres of tokens. `table` (2, N, d) is (cos, sin) of every patch; returns (2, B, K, d).

    Axial rotary angles are linear in (y, x): three corners of the grid tell them. Exact for one region a patch; a
    larger region stands where its centre is.
    """
    columns = grid[1]
    origin = torch.complex(table[0, 0].float(), table[1, 0].float())
    down, right = (
        torch.complex(table[0, at].float(), table[1, at].float()) if at < table.shape[1] and there else origin
        for at, there in ((columns, grid[0] > 1), (1, columns > 1))
    )
    step_y, step_x = torch.angle(down * origin.conj()), torch.angle(right * origin.conj())
    angle = torch.angle(origin) + centre[..., :1] * step_y + centre[..., 1:] * step_x
    return torch.stack([angle.cos(), angle.sin()]).to(table.dtype)


def _misfit(labels: Tensor, grid: tuple[int, int]) -> bool:
    return labels.shape[1] % grid[0] != 0 or labels.shape[2] % grid[1] != 0


def _contacts(labels: Tensor, before: Tensor, tokens: int, count: int) -> Tensor:
    """(B, K, R): pixels that a region of `labels` shares with each of `before`."""
    slot = (labels.long() * count + before.long()).flatten(1)
    shares = torch.zeros(labels.shape[0], tokens * count, device=labels.device)
    return shares.scatter_add_(1, slot, shares.new_ones(1).expand_as(slot)).view(-1, tokens, count)


def _grid_neighbours(grid: tuple[int, int], device: torch.device) -> Tensor:
    """bool (N, N): patches above, below, left and right of each other."""
    place = torch.arange(grid[0] * grid[1], device=device)
    y, x = place // grid[1], place % grid[1]
    return ((y[:, None] - y).abs() + (x[:, None] - x).abs()) == 1
