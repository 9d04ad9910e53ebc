"""Superpixels on the device: the torch form and the Triton kernels side by side, nested levels, agreement."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from focusvit.segment.torch_slic import torch_slic
from focusvit.segment.ward import slic_levels
from tests.benchmarks.gpu.plan import Plan
from tests.benchmarks.report import Table

GOAL_US = 5.0
_COMPARED = 8  # images of a batch whose maps the CPU makes too


def tables(plan: Plan) -> Iterator[Table]:
    """Microseconds an image at 224 px, the largest batch first; then with a second level."""
    side, batches = (32, (2,)) if plan.toy else (224, (256, 32, 1))
    counts = (6,) if plan.toy else (64, 49, 100, 196)
    drawn = torch.rand(max(batches), 3, side, side, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.avg_pool2d(drawn, 9, 1, 4).to(plan.device)  # noise has no regions
    rows: list[list[object]] = []
    for batch in batches:
        for tokens in counts:
            if plan.over:
                return
            rows += _forms(plan, images[:batch], tokens)
            yield Table(
                title="SLIC in torch and in Triton", rows=rows,
                columns=["regions", "batch", "form", "us an image", "of torch's time", "as a CUDA graph, us",
                         "pixels as torch here", "pixels as torch on the CPU", "maps of two calls"],
                note=f"{side} px. The goal of the kernels is under {GOAL_US:g} us at 224 px and batch 256.",
            )  # fmt: skip
    yield from _levels(plan, images, counts)


def _forms(plan: Plan, images: Tensor, tokens: int) -> list[list[object]]:
    here, there = torch_slic(images, tokens), torch_slic(images[:_COMPARED].cpu(), tokens)
    rows: list[list[object]] = []
    base = 0.0
    for name, form in {"torch": torch_slic, "Triton": _kernels(plan)}.items():
        start: list[object] = [tokens, len(images), name]
        if isinstance(form, str):
            rows.append([*start, form, *[""] * 5])
            continue
        call = lambda form=form: form(images, tokens)  # noqa: E731
        try:
            maps, again = call(), call()
            seconds = plan.seconds(call)
            graph = f"{plan.seconds(plan.graph(call)) / len(images) * 1e6:.2f}" if plan.device != "cpu" else "no GPU"
        except Exception as error:
            rows.append(
                [*start, f"failed: {type(error).__name__}: {(str(error) or '-').splitlines()[0][:200]}", *[""] * 5]
            )
            continue
        base = base or seconds
        rows.append([
            *start, f"{seconds / len(images) * 1e6:.2f}", f"{seconds / base:.2f}", graph, _equal(maps, here),
            _equal(maps[:_COMPARED].cpu(), there), "the same" if torch.equal(maps, again) else "**differ**",
        ])  # fmt: skip
    return rows


def _kernels(plan: Plan) -> Callable[[Tensor, int], Tensor] | str:
    """The Triton form, or why there is none."""
    if plan.device == "cpu":
        return "not available: no GPU"
    try:
        from focusvit.segment.triton_slic import triton_slic
    except ImportError as error:
        return f"not available: {error}"
    return triton_slic


def _levels(plan: Plan, images: Tensor, counts: tuple[int, ...]) -> Iterator[Table]:
    rows: list[list[object]] = []
    for tokens in counts:
        if plan.over:
            return
        seconds = plan.seconds(lambda tokens=tokens: slic_levels(images, (tokens, max(1, tokens // 2))))
        rows.append([tokens, len(images), f"{seconds / len(images) * 1e6:.1f}"])
        yield Table(
            title="Superpixels and a level of half as many", columns=["regions", "batch", "us an image"], rows=rows,
            note="SLIC by whatever runs on the device, then merging by Ward's cost.",
        )  # fmt: skip


def _equal(one: Tensor, other: Tensor) -> str:
    return f"{float((one == other).float().mean()):.2%}"
