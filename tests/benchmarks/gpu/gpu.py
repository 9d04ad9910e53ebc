"""`bench gpu`: every figure that needs a GPU, by one command, in order of worth and within the minutes given.

It runs where there is little but torch, NumPy, timm and transformers: no Ray, MLflow, WebDataset, fast-slic, OpenCV.
Each stage is a process with a bound of its own and writes its tables at once; a stage that fails or runs out of time is
a row.
"""

import argparse
import importlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from focusvit.runs.provenance import checkout, evidence
from pipeline.errors import UsageError
from tests.benchmarks.gpu.plan import STAGES, Plan
from tests.benchmarks.report import RESULTS, ROOT, Table

_GRACE_S = 5.0  # for a stage to write what it has


def main(argv: list[str]) -> int:
    """Run the stages. Returns 1 when one of them brought nothing."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu", help="folder of the tables")
    parser.add_argument("--minutes", type=float, default=9.0, help="all stages together")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu with --rehearsal")
    parser.add_argument("--rehearsal", action="store_true", help="toy sizes on the CPU: does every stage run?")
    parser.add_argument("--inputs", type=Path, help="folder of NAME.npz (bench gpu-inputs), for accuracy")
    parser.add_argument("--changed-checkout", action="store_true", help="measure code that no commit holds, and say so")
    parser.add_argument("--stages", nargs="*", default=list(STAGES), choices=list(STAGES))
    parser.add_argument("--stage", choices=list(STAGES), help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=60.0, help=argparse.SUPPRESS)
    told = parser.parse_args(argv)
    device = "cpu" if told.rehearsal else told.device
    if device != "cpu" and not torch.cuda.is_available():
        parser.error("torch sees no GPU here; `--rehearsal` runs every stage at toy size on the CPU")
    at = checkout(ROOT, ignore=told.out)
    if at.changed and not (told.changed_checkout or told.rehearsal or told.stage):
        raise UsageError(
            f"this checkout differs from its commit {at.commit} in {', '.join(at.changed[:8])}: commit first, or give "
            "--changed-checkout and the tables say so."
        )
    told.out.mkdir(parents=True, exist_ok=True)
    if told.stage:
        return _one(told.stage, Plan(device, told.rehearsal, time.monotonic() + told.seconds, told.inputs), told.out)
    return _all(told, argv, device)


def _all(told: Any, argv: list[str], device: str) -> int:
    ends = time.monotonic() + told.minutes * 60
    facts = evidence("python -m tests.benchmarks gpu " + " ".join(argv), ("torch", "transformers", "timm", "numpy"))
    at = checkout(ROOT, ignore=told.out)
    facts["commit"] = f"{at.commit} and changes that no commit holds" if at.changed else at.commit
    facts |= {"device": torch.cuda.get_device_name() if device != "cpu" else "cpu, toy sizes: a rehearsal"}
    rows, empty = [], 0
    for number, stage in enumerate(told.stages):
        share = STAGES[stage] / sum(STAGES[name] for name in told.stages[number:])
        seconds = max(20.0, (ends - time.monotonic()) * share)
        command = [sys.executable, "-m", "tests.benchmarks", "gpu", "--stage", stage, "--seconds", f"{seconds:.0f}"]
        command += ["--out", str(told.out), "--device", device, *(["--rehearsal"] if told.rehearsal else [])]
        command += ["--inputs", str(told.inputs)] if told.inputs else []
        began, end = time.monotonic(), "done"
        try:
            code = subprocess.run(command, timeout=seconds + 60).returncode
            end = "done" if code == 0 else f"exit code {code}"
        except subprocess.TimeoutExpired:
            end = "stopped: it went on after its time"
        tables = len(list(told.out.glob(f"{stage}*.md")))
        empty += not tables
        rows.append([stage, end, tables, f"{time.monotonic() - began:.0f}", f"{seconds:.0f}"])
    table = Table(title="Stages", columns=["stage", "end", "tables", "seconds", "bound"], rows=rows)
    lines = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    (told.out / "README.md").write_text(f"# GPU\n\n{lines}\n\n{table.markdown()}", encoding="utf-8")
    sys.stdout.write(table.markdown() + f"tables in {told.out}\n")
    return 1 if empty else 0


def _one(stage: str, plan: Plan, out: Path) -> int:
    """One stage in this process; every table is written when it grows."""
    torch.manual_seed(0)
    module = importlib.import_module(f"tests.benchmarks.gpu.{stage}")
    for table in module.tables(plan):
        name = "-".join([stage, *table.title.lower().replace(",", "").split()[:4]]).replace("/", "-")
        (out / f"{name}.md").write_text(table.markdown(), encoding="utf-8")
        content = {"title": table.title, "columns": list(table.columns), "rows": [list(row) for row in table.rows]}
        (out / f"{name}.json").write_text(json.dumps(content | {"note": table.note}, indent=1), encoding="utf-8")
        sys.stdout.write(table.markdown())
        sys.stdout.flush()
    return 0
