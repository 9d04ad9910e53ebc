"""The training step of every row: forward, backward, AdamW, in bf16, eager and compiled; peak memory."""

from collections.abc import Iterator

import torch

from focusvit.model.cost import training_loss
from tests.benchmarks.gpu.plan import Plan
from tests.benchmarks.gpu.rows import compiled_rows, rows
from tests.benchmarks.report import Table


def tables(plan: Plan) -> Iterator[Table]:
    """Maps come with the batch, as from shards."""
    for how in ("eager", "compiled"):
        batch = 2 if plan.toy else 256
        found: list[list[object]] = []
        first: tuple[float, float] | None = None
        of = compiled_rows if how == "compiled" else rows
        for row in of("tiny" if plan.toy else "small", 224, plan.toy):
            if plan.over:
                break
            try:
                model, inputs = row.build(plan.device).train(), row.inputs(batch, plan.device)
                optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
                run = plan.compiled(model) if how == "compiled" else model

                def step() -> None:
                    with torch.autocast(plan.device, torch.bfloat16):
                        loss = training_loss(run, *inputs)  # noqa: B023 - called in this turn only
                    loss.backward()
                    optimizer.step()  # noqa: B023
                    optimizer.zero_grad(set_to_none=True)  # noqa: B023

                seconds, peak = plan.seconds(step), 0.0
                if plan.device != "cpu":
                    torch.cuda.reset_peak_memory_stats()
                    step()
                    plan.wait()
                    peak = float(torch.cuda.max_memory_allocated())
            except Exception as error:
                found.append([row.name, plan.failed(f"{row.name}, {how}", error), "", "", ""])
            else:
                first = first or (seconds, max(peak, 1.0))
                share = f"{peak / first[1]:.0%}" if peak else ""
                found.append(
                    [row.name, f"{batch / seconds:.0f}", f"{first[0] / seconds:.2f}x", f"{peak / 2**20:.0f}", share]
                )
            yield Table(
                title=f"training step bf16 {how} batch {batch}", rows=found,
                columns=["model", "img/s", "ratio", "peak MiB", "of the first"],
                note="Superpixels come with the batch. Forward, loss, backward, fused AdamW.",
            )  # fmt: skip
