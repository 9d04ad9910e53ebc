"""Images a second and peak memory of every row, superpixels included and not."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from focusvit.segment.slic import slic
from tests.benchmarks.gpu.plan import Plan
from tests.benchmarks.gpu.rows import Row, compiled_rows, rows
from tests.benchmarks.report import Table

Mode = tuple[str, str, str, int, int]
"""(size, precision, eager | compiled | graph, px, batch)"""


def modes(toy: bool) -> list[Mode]:
    """In order of worth."""
    if toy:
        ways = (("fp32", "eager"), ("bf16", "eager"), ("bf16", "compiled"))
        return [("tiny", precision, how, 32, 2) for precision, how in ways]
    found: list[Mode] = [("small", "bf16", "eager", 224, batch) for batch in (256, 64)]
    found += [
        ("small", "bf16", "graph", 224, 1),
        ("base", "bf16", "eager", 224, 256),
        ("small", "tf32", "eager", 224, 256),
        ("small", "bf16", "eager", 512, 64),
    ]
    found += [("small", "bf16", "compiled", 224, 256)]  # half a minute a model: after those of a second
    found += [("small", "fp32", "eager", 224, 64), ("small", "bf16", "eager", 224, 1)]
    return [*found, ("base", "bf16", "compiled", 224, 256)]


def tables(plan: Plan) -> Iterator[Table]:
    """One table a mode; ratios are to the first row that ran."""
    for mode in modes(plan.toy):
        if plan.over:
            return
        size, precision, how, px, batch = mode
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "fp32"
        found: list[list[object]] = []
        first: tuple[float, float] | None = None
        for row in (compiled_rows if how == "compiled" else rows)(size, px, plan.toy):
            if plan.over:
                break
            try:
                seconds, with_maps, peak = _measured(plan, row, precision, how, batch)
            except Exception as error:
                found.append([row.name, plan.failed(f"{row.name}, {mode}", error), "", "", "", "", ""])
            else:
                first = first or (seconds, peak)
                found.append([
                    row.name, f"{batch / seconds:.0f}", f"{first[0] / seconds:.2f}x", f"{batch / with_maps:.0f}",
                    f"{first[0] / with_maps:.2f}x", f"{peak / 2**20:.0f}", f"{peak / first[1]:.0%}",
                ])  # fmt: skip
            yield Table(
                title=f"{size} {precision} {how} {px} px batch {batch}", rows=found,
                columns=["model", "img/s", "ratio", "with superpixels", "ratio", "peak MiB", "of the first"],
                note="SLIC on the device, by the form that runs there. Whole batches, not sliced. Peak: weights, "
                "inputs and activations of inference.",
            )  # fmt: skip


def _measured(plan: Plan, row: Row, precision: str, how: str, batch: int) -> tuple[float, float, float]:
    """(seconds a batch, with superpixels, peak bytes of inference)."""
    model, inputs = row.build(plan.device), row.inputs(batch, plan.device)

    @torch.inference_mode()
    def forward(*given: Tensor) -> Tensor:
        with torch.autocast(plan.device, torch.bfloat16, enabled=precision == "bf16"):
            return run(*given)

    run = plan.compiled(model) if how == "compiled" else model
    call: Callable[[], object] = lambda: forward(*inputs)  # noqa: E731
    peak = _peak(plan, model, inputs, call)
    if how == "graph" and plan.device != "cpu":
        call = plan.graph(call)
    seconds = plan.seconds(call)
    made = plan.seconds(lambda: slic(inputs[0], row.tokens or 1), 0.1) if row.tokens else 0.0
    return seconds, seconds + made, peak


def _peak(plan: Plan, model: nn.Module, inputs: tuple[Tensor, ...], call: Callable[[], object]) -> float:
    held = sum(t.numel() * t.element_size() for t in (*model.parameters(), *inputs))
    if plan.device == "cpu":
        call()
        return float(held)
    call()
    plan.wait()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    plan.wait()
    return float(held + torch.cuda.max_memory_allocated() - before)
