"""What a caller asks of a patched model: token budgets by depth, and the maps of one call; everything checked here."""

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor

Budget = int | float
"""a number of tokens, or a share of the patches"""


def levels_of(tokens: Budget | Mapping[int, Budget], depth: int | None, blocks: int) -> tuple[tuple[int, Budget], ...]:
    """(depth, budget) of each level, in order. Raises ValueError for levels that grow or a depth without a block."""
    if isinstance(tokens, Mapping):
        if depth is not None:
            raise ValueError("tokens already says the depth of each level: leave `depth` out")
        found = tuple(sorted(tokens.items()))
    else:
        found = ((2 * blocks // 3 if depth is None else depth, tokens),)
    if not found or not all(0 <= at < blocks for at, _ in found):
        raise ValueError(
            f"depth is {', '.join(str(at) for at, _ in found)}; this model has {blocks} blocks: use 0..{blocks - 1}"
        )
    counts = [count for _, count in found]
    if not all(0 < count < 1 if isinstance(count, float) else count >= 1 for count in counts):
        raise ValueError(f"tokens is {counts}: use numbers from 1, or shares of the patches between 0 and 1")
    if len({type(count) for count in counts}) > 1 or any(b >= a for a, b in pairwise(counts)):
        raise ValueError(
            f"tokens of the levels are {counts}: they must fall from level to level, all numbers or all shares"
        )
    return found


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
