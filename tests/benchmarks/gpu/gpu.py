"""`bench gpu`: every figure that needs a GPU, by one command, in order of worth and within the minutes given.

It runs where there is little but torch, NumPy, timm and transformers: no Ray, MLflow, WebDataset, fast-slic or OpenCV.
Each stage is a process with a bound of its own and writes its tables as they grow: OUT/STAGE.json, with the traces of
what failed, and all of them in OUT/README.md. A row, or a stage, that fails or runs out of time is a row.
"""

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from focusvit.segment import slic
from pipeline.errors import UsageError
from tests.benchmarks.gpu.plan import STAGES, Plan
from tests.benchmarks.provenance import checkout, evidence
from tests.benchmarks.report import RESULTS, ROOT, Table

_GRACE_S = 60.0  # beyond its bound, for the model that a stage is at
_LAST_S = 20.0  # beyond all minutes, likewise
_TRUSTED = (
    95.0  # per cent of pixels that the kernels must give the region of the torch form, to be used in later stages
)


def main(argv: list[str]) -> int:
    """Run the stages. Returns 1 when one of them brought nothing or did not end, or a row failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu", help="folder of the tables")
    parser.add_argument("--minutes", type=float, default=9.0, help="all stages together")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu with --rehearsal")
    parser.add_argument("--rehearsal", action="store_true", help="toy sizes on the CPU: does every stage run?")
    parser.add_argument("--inputs", type=Path, help="folder of NAME.npz (bench gpu-inputs), for accuracy")
    parser.add_argument("--changed-checkout", action="store_true", help="measure code that no commit holds, and say so")
    parser.add_argument("--commit", default="", help="what this copy is of, where git cannot tell")
    parser.add_argument("--stages", nargs="*", default=list(STAGES), choices=list(STAGES))
    parser.add_argument("--stage", choices=list(STAGES), help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=60.0, help=argparse.SUPPRESS)
    parser.add_argument("--torch-slic", action="store_true", help="make superpixels by torch, not by the kernels")
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
        if told.torch_slic:
            slic.KERNEL_DEVICES = ()
        return _one(told.stage, Plan(device, told.rehearsal, time.monotonic() + told.seconds, told.inputs), told.out)
    return _all(told, argv, device)


def _all(told: Any, argv: list[str], device: str) -> int:
    ends = time.monotonic() + told.minutes * 60
    facts = evidence("python -m tests.benchmarks gpu " + " ".join(argv), ("torch", "transformers", "timm", "numpy"))
    at = checkout(ROOT, ignore=told.out)
    facts["commit"] = told.commit or (f"{at.commit} and changes that no commit holds" if at.changed else at.commit)
    facts |= {"device": torch.cuda.get_device_name() if device != "cpu" else "cpu, toy sizes: a rehearsal"}
    rows: list[list[object]] = []
    stages = [name for name in told.stages if name != "accuracy" or told.inputs or told.rehearsal]
    bad = False
    for number, stage in enumerate(stages):
        # Of toys each takes seconds, on a busy machine more: half of what is left, so that none is cut.
        share = 0.5 if told.rehearsal else STAGES[stage] / sum(STAGES[name] for name in stages[number:])
        seconds = max(20.0, (ends - time.monotonic()) * share)
        command = [sys.executable, "-m", "tests.benchmarks", "gpu", "--stage", stage, "--seconds", f"{seconds:.0f}"]
        command += ["--out", str(told.out), "--device", device, *(["--rehearsal"] if told.rehearsal else [])]
        command += ["--inputs", str(told.inputs)] if told.inputs else []
        command += ["--torch-slic"] if told.torch_slic or not _kernels_are_right(told.out, stage) else []
        (told.out / f"{stage}.json").unlink(missing_ok=True)
        began = time.monotonic()
        end = _run(command, min(seconds + _GRACE_S, max(seconds, ends + _LAST_S - began)))
        found = _read(told.out / f"{stage}.json")
        bad |= end != "done" or not found["tables"] or bool(found["failures"])
        rows.append([
            stage, end, len(found["tables"]), len(found["failures"]), f"{time.monotonic() - began:.0f}",
            f"{seconds:.0f}",
        ])  # fmt: skip
        table = Table(title="Stages", columns=["stage", "end", "tables", "failures", "seconds", "bound"], rows=rows)
        _write_page(told.out, facts, table, stages)
    if "accuracy" in told.stages and "accuracy" not in stages:
        sys.stdout.write("accuracy is left out: it needs --inputs\n")
    sys.stdout.write(table.markdown() + f"tables in {told.out}\n")
    return int(bad)


def _run(command: list[str], most_s: float) -> str:
    """How the process ended. It is stopped after `most_s`, with all that it started."""
    process = subprocess.Popen(command, start_new_session=True)
    try:
        code = process.wait(most_s)
        return "done" if code == 0 else f"exit code {code}"
    except subprocess.TimeoutExpired:
        return "stopped: it went on after its time"
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


def _kernels_are_right(out: Path, stage: str) -> bool:
    """Whether later stages may make superpixels by Triton: what the segment stage found, if it ran before."""
    tables = _read(out / "segment.json")["tables"] if stage != "segment" else []
    cells = [row for table in tables[:1] for row in table["rows"] if row[2] == "Triton"]
    agreed = [float(row[6][:-1]) if str(row[6]).endswith("%") else 0.0 for row in cells]
    return not tables or min(agreed, default=0.0) >= _TRUSTED


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"tables": [], "failures": []}


def _write_page(out: Path, facts: dict[str, Any], stages: Table, names: list[str]) -> None:
    lines = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    tables = [Table(**content) for name in names for content in _read(out / f"{name}.json")["tables"]]
    page = "\n".join([f"# GPU\n\n{lines}\n", *(table.markdown() for table in (stages, *tables))])
    (out / "README.md").write_text(page, encoding="utf-8")


def _one(stage: str, plan: Plan, out: Path) -> int:
    """One stage in this process; its tables are written when one grows."""
    torch.manual_seed(0)
    tables: dict[str, dict[str, Any]] = {}

    def save() -> None:
        new = out / f".{stage}.json"
        content = {"tables": list(tables.values()), "failures": plan.failures}
        new.write_text(json.dumps(content, indent=1), encoding="utf-8")
        new.replace(out / f"{stage}.json")

    code = 0
    try:
        for table in importlib.import_module(f"tests.benchmarks.gpu.{stage}").tables(plan):
            tables[table.title] = asdict(table)
            save()
            sys.stdout.write(table.markdown())
            sys.stdout.flush()
    except Exception as error:
        plan.failed(stage, error)
        traceback.print_exc()
        code = 1
    save()
    return code
