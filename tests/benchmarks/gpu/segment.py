"""Superpixels on the device: time of the torch SLIC and of nested levels, and their agreement with the CPU."""

from collections.abc import Iterator

import torch

from focusvit.segment.torch_slic import slic
from focusvit.segment.ward import slic_levels
from tests.benchmarks.gpu.plan import Plan
from tests.benchmarks.report import Table

GOAL_US = 5.0


def tables(plan: Plan) -> Iterator[Table]:
    """Microseconds an image at 224 px."""
    side, batches = (32, (2,)) if plan.toy else (224, (1, 32, 256))
    counts = (6,) if plan.toy else (49, 64, 100, 196)
    found: list[list[object]] = []
    drawn = torch.rand(max(batches), 3, side, side, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.avg_pool2d(drawn, 9, 1, 4)  # noise has no regions
    for tokens in counts:
        for batch in batches:
            if plan.over:
                break
            images = smooth[:batch].to(plan.device)
            there, here = slic(images, tokens).cpu(), slic(smooth[:batch], tokens)
            equal = float((there == here).float().mean())
            one = plan.seconds(lambda images=images, tokens=tokens: slic(images, tokens))
            levels = (tokens, max(1, tokens // 2))
            two = plan.seconds(lambda images=images, levels=levels: slic_levels(images, levels))
            found.append([tokens, batch, f"{one / batch * 1e6:.1f}", f"{two / batch * 1e6:.1f}", f"{equal:.1%}"])
            yield Table(
                title="Superpixels on the device", rows=found,
                columns=["regions", "batch", "SLIC, us", "and a level of half as many", "pixels as on the CPU"],
                note=f"224 px, torch form; the goal of a kernel of its own is under {GOAL_US:g} us at batch 256.",
            )  # fmt: skip
