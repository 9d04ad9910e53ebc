"""Superpixels on the device: the torch form and the Triton kernels side by side, nested levels, agreement."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from focusvit.segment.torch_slic import torch_slic
from focusvit.segment.ward import slic_levels
from tests.benchmarks.gpu.plan import Plan
from tests.benchmarks.report import Table

Form = Callable[[Tensor, int], Tensor]
GOAL_US = 5.0
_COMPARED = 8  # images of a batch whose maps the CPU makes too


def tables(plan: Plan) -> Iterator[Table]:
    """Microseconds an image at 224 px, the largest batch first; then with a second level."""
    side, batches = (32, (2,)) if plan.toy else (224, (256, 32, 1))
    counts = (6,) if plan.toy else (64, 196, 100, 49)
    drawn = torch.rand(max(batches), 3, side, side, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.avg_pool2d(drawn, 9, 1, 4).to(plan.device)  # noise has no regions
    rows: list[list[object]] = []
    torch_s: dict[tuple[int, int], float] = {}
    # All of torch's rows before the kernels: one that writes where it must not ends every later call on the device.
    for name, form in {"torch": torch_slic, "Triton": _kernels(plan)}.items():
        for batch in batches:
            for tokens in counts:
                if plan.over:
                    return
                rows.append([tokens, batch, name, *_cells(plan, form, images[:batch], tokens, torch_s)])
                yield Table(
                    title="SLIC in torch and in Triton", rows=rows,
                    columns=["regions", "batch", "form", "us an image", "of torch's time", "as a CUDA graph, us",
                             "pixels as torch here", "pixels as torch on the CPU", "maps of two calls"],
                    note=f"{side} px. The goal of the kernels is under {GOAL_US:g} us at 224 px and batch 256.",
                )  # fmt: skip
    yield from _levels(plan, images, counts)


def _cells(
    plan: Plan, form: Form | str, images: Tensor, tokens: int, torch_s: dict[tuple[int, int], float]
) -> list[object]:
    """What stands behind the name of a form. `torch_s`: seconds of the torch form, by (batch, regions)."""
    if isinstance(form, str):
        return [form, *[""] * 5]
    what = f"{getattr(form, '__name__', form)}, {len(images)} images, {tokens} regions"
    try:
        maps, again = form(images, tokens), form(images, tokens)
        here, there = torch_slic(images, tokens), torch_slic(images[:_COMPARED].cpu(), tokens)
        agreed = [_equal(maps, here), _equal(maps[:_COMPARED].cpu(), there)]
        twice = "the same" if torch.equal(maps, again) else "**differ**"
        seconds = plan.seconds(lambda: form(images, tokens))
    except Exception as error:
        return [plan.failed(what, error), *[""] * 5]
    base = torch_s.setdefault((len(images), tokens), seconds)
    graph = "no GPU"
    if plan.device != "cpu":
        try:
            replay = plan.graph(lambda: form(images, tokens))
            graph = f"{plan.seconds(replay) / len(images) * 1e6:.2f}"
        except Exception as error:
            graph = plan.failed(f"{what}, as a graph", error)
    return [f"{seconds / len(images) * 1e6:.2f}", f"{seconds / base:.2f}", graph, *agreed, twice]


def _kernels(plan: Plan) -> Form | str:
    """The Triton form, or why there is none."""
    if plan.device == "cpu":
        return "not available: no GPU"
    try:
        from focusvit.segment.triton_slic import triton_slic
    except Exception as error:  # a Triton of another version can fail in many ways
        return plan.failed("Triton", error)
    return triton_slic


def _levels(plan: Plan, images: Tensor, counts: tuple[int, ...]) -> Iterator[Table]:
    rows: list[list[object]] = []
    for tokens in counts:
        if plan.over:
            return
        try:
            seconds = plan.seconds(lambda tokens=tokens: slic_levels(images, (tokens, max(1, tokens // 2))))
            cell = f"{seconds / len(images) * 1e6:.1f}"
        except Exception as error:
            cell = plan.failed(f"levels of {tokens} regions", error)
        rows.append([tokens, len(images), cell])
        yield Table(
            title="Superpixels and a level of half as many", columns=["regions", "batch", "us an image"], rows=rows,
            note="SLIC by whatever runs on the device, then merging by Ward's cost.",
        )  # fmt: skip


def _equal(one: Tensor, other: Tensor) -> str:
    return f"{float((one == other).float().mean()):.2%}"
