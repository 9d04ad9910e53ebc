"""Token budgets by depth: what a caller asks of a patched model. Light: a config checks itself here."""

from collections.abc import Mapping
from itertools import pairwise

Budget = int | float
"""a number of tokens, or a share of the patches"""


def levels_of(tokens: Budget | Mapping[int, Budget], depth: int | None, blocks: int) -> tuple[tuple[int, Budget], ...]:
    """(depth, budget) of each level, in order. Raises ValueError for levels that grow or a depth without a block."""
    if isinstance(tokens, Mapping):
        if depth is not None:
            raise ValueError("tokens already says the depth of each level: leave `depth` out")
        found = tuple(sorted(tokens.items()))
    else:
        found = ((blocks // 2 if depth is None else depth, tokens),)
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
