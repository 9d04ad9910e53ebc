"""Hidden states of the host before a block, kept: ways that change nothing before that block share them.

What a table says of accuracy may come from these; what it says of time never does.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from focusvit.drop_in.hosts import find_host
from tests.benchmarks.hosts.images import normalised
from tests.benchmarks.hosts.ways import Way, prepared, run


@dataclass
class Views:
    """Images at one input size, and the host's states of them: `at[depth]` is (S, 1 + N, D) float16."""

    images: Sequence[np.ndarray]
    at: dict[int, Tensor] = field(default_factory=dict)

    def before(self, way: Way) -> int | None:
        """The latest kept block that the way leaves as it is."""
        kept = [depth for depth in self.at if way.depth is None or depth <= way.depth]
        return max(kept, default=None)


def bfloat16(wanted: bool = True) -> AbstractContextManager[None]:
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=wanted)


@torch.inference_mode()
def views_of(
    host: Path, model: nn.Module, images: Sequence[np.ndarray], depths: Sequence[int], batch: int
) -> Views:  # fmt: skip
    """The images with the states before blocks `depths`, by the host as it is, in bfloat16."""
    prepared(model, Way())
    found: dict[int, list[Tensor]] = {depth: [] for depth in depths}
    blocks = find_host(model).blocks
    handles = [
        blocks[depth].register_forward_pre_hook(lambda _, args, depth=depth: found[depth].append(args[0].half()))
        for depth in depths
    ]
    last = max(depths, default=0)
    skipped = blocks[last:]
    for block in skipped:
        block.forward = lambda x, *_, **__: x  # type: ignore[assignment]
    try:
        with bfloat16():
            for start in range(0, len(images), batch) if depths else ():
                model(normalised(images[start : start + batch], host))
    finally:
        for handle in handles:
            handle.remove()
        _restore(skipped)
    return Views(images, {depth: torch.cat(parts) for depth, parts in found.items()})


def outputs(
    host: Path, model: nn.Module, way: Way, views: Views, rows: Sequence[int], exact: bool = False
) -> Tensor:  # fmt: skip
    """(B, 1 + N, D) float32 of the images `rows`, by the model as it was prepared; in bfloat16 unless `exact`."""
    images = [views.images[row] for row in rows]
    depth = None if exact else views.before(way)
    states = None if depth is None else views.at[depth][list(rows)].float()
    with bfloat16(not exact), _resumed(model, depth, states):
        return run(model, way, images, normalised(images, host)).float()


@contextmanager
def _resumed(model: nn.Module, depth: int | None, states: Tensor | None) -> Iterator[None]:
    """Inside, block `depth` of the host gets `states`, and those before it do nothing."""
    blocks = find_host(model).blocks[: depth or 0]
    for block in blocks:
        block.forward = lambda x, *_, **__: x  # type: ignore[assignment]
    if blocks:
        blocks[-1].forward = lambda *_, **__: states  # type: ignore[assignment]
    try:
        yield
    finally:
        _restore(blocks)


def _restore(blocks: Sequence[nn.Module]) -> None:
    for block in blocks:
        block.__dict__.pop("forward", None)
