"""Laws on the device: forward and gradients of every row against float64 on the CPU, bf16, compiled."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from focusvit.model.cost import logits_of
from tests.benchmarks.gpu.plan import Plan
from tests.benchmarks.gpu.rows import Row, rows
from tests.benchmarks.report import Table

ALLOWED = {"float32": 1e-4, "bf16": 5e-2, "compiled": 1e-4}


def tables(plan: Plan) -> Iterator[Table]:
    """Relative differences of logits and of all gradients together. Compiling takes longest and so comes last."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    held = [row for row in rows("tiny", 224, plan.toy) if row.config is not None]
    found: dict[str, list[str]] = {}
    for ways in (("float32", "bf16"), ("compiled",)):
        for number, row in enumerate(held):
            if plan.over:
                return
            cells = found.setdefault(row.name, ["not yet"] * len(ALLOWED))
            # Tracing takes a CPU seconds, and the other rows share the code of the first two.
            skipped = plan.toy and ways == ("compiled",) and number > 1
            new = dict.fromkeys(ways, "not rehearsed") if skipped else _off_by(plan, row, ways)
            for way, cell in new.items():
                cells[list(ALLOWED).index(way)] = cell
            yield Table(
                title="Laws on the device", columns=["model", *ALLOWED],
                rows=[[name, *cells] for name, cells in found.items()],
                note="Largest relative difference of logits and gradients (2-norms) from float64 on the CPU; allowed: "
                + ", ".join(f"{way} {most:g}" for way, most in ALLOWED.items())
                + (". Compiled: traced, without kernels of its own, in this rehearsal." if plan.toy else "."),
            )  # fmt: skip


def _off_by(plan: Plan, row: Row, ways: tuple[str, ...]) -> dict[str, str]:
    """The cell of each way."""
    try:
        torch.manual_seed(0)
        model, inputs = row.build("cpu"), row.inputs(2, "cpu")
        wanted, wanted_slope = _both(copy.deepcopy(model).double(), inputs, None)
        here, given = model.to(plan.device), tuple(part.to(plan.device) for part in inputs)
    except Exception as error:
        return dict.fromkeys(ways, plan.failed(row.name, error))
    cells = {}
    for way in ways:
        try:
            run = plan.compiled(here) if way == "compiled" else here
            logits, slope = _both(run, given, torch.bfloat16 if way == "bf16" else None)
            worst = max(_off(logits, wanted), _off(slope, wanted_slope))
            cells[way] = f"{worst:.1e}{'' if worst <= ALLOWED[way] else ' **too far**'}"
        except Exception as error:
            cells[way] = plan.failed(f"{row.name}, {way}", error)
    return cells


def _both(model: nn.Module, inputs: tuple[Tensor, ...], dtype: torch.dtype | None) -> tuple[Tensor, Tensor]:
    model.zero_grad(set_to_none=True)
    with torch.autocast(inputs[0].device.type, dtype or torch.bfloat16, enabled=dtype is not None):
        logits = logits_of(model(*inputs))
    logits.double().square().mean().backward()
    slopes = [p.grad.detach().double().cpu().flatten() for p in model.parameters() if p.grad is not None]
    return logits.detach().double().cpu(), torch.cat(slopes)


def _off(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm().clamp(min=1e-12))
