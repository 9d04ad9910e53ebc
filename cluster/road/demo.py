"""`focusvit demo`: what this project does, in a few minutes on two cores, without any data: one page at its end.

Each step is an ordinary command, printed before it runs, so the demo is also the tutorial. One training is killed in
the middle, as a machine that dies would, and goes on.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cluster.ray_session import ray_session
from focusvit import cli
from focusvit.box.names import names
from focusvit.runs.run_dir import RunDir
from pipeline.commandline import parse
from pipeline.errors import UsageError
from pipeline.io.machine import usable_cpus

MARK = "focusvit-demo.txt"  # stands in a folder that this command made and may therefore empty
BOX = "focusvit-tiny"
WORKERS = 2
MOST = ("--max-samples", "1000")
"""of the digits to learn from: more of them make the features no better and cost seconds"""


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Generated images to shards, trained and compared models, transfer tasks, and one page that shows all of it."""

    out: Path = Path("demo")
    """Folder for everything the demo writes; emptied first if an earlier demo made it."""


@dataclass(frozen=True)
class Step:
    """One command of the road and the line that introduces it."""

    title: str
    argv: list[str]
    killed: bool = False
    """end it without warning after its first checkpoint"""


def steps(out: Path) -> list[Step]:
    """The road as data. Paths are absolute: workers run elsewhere. On one CPU a single worker trains."""
    workers = min(WORKERS, usable_cpus())
    images, shards, runs = out / "images", out / "shards", out / "runs"
    tracking = ["--tracking-uri", f"sqlite:///{out / 'mlflow.db'}"]

    def preprocess(name: str, split: str) -> Step:
        most = MOST if (name, split) == ("digits", "train") else ()
        place = ["--source", str(images / name), "--out", str(shards / name), "--split", split]
        return Step(f"{name}: images -> shards ({split})", ["preprocess", *place, *most])

    def train(recipe: str) -> list[str]:
        place = ["--data", str(shards / "shapes"), "--run-dir", str(runs / recipe), "--workers", str(workers)]
        return ["pretrain", recipe, *place, *tracking]

    start = start_of(out)
    tasks = [part for name in ("digits", "scenes") for part in ("--task", f"{name}={shards / name}")]
    transfer = ["transfer", "--checkpoint", start, "--suite", "quick", *tasks, "--out", str(runs / "transfer")]
    return [
        *(preprocess(name, split) for name in ("shapes", "scenes", "digits") for split in ("train", "val")),
        Step(f"train a FocusViT, workers {workers}, and lose the machine", train("demo"), killed=True),
        Step("the same command goes on", train("demo")),
        Step("a plain ViT of the same size on the same images", train("demo_vit")),
        Step(f"what {Path(start).name} knows of other tasks", [*transfer, *tracking]),
    ]


def start_of(out: Path) -> str:
    """What the transfer begins with: the model in the box, or the one that the demo has just trained."""
    return BOX if BOX in names() else str(out / "runs" / "demo")


def main(argv: list[str]) -> int:
    config = parse(DemoConfig, argv, prog="focusvit demo")
    from pipeline.sources.embedded import write_digits, write_scenes, write_shapes  # late: --help loads no OpenCV

    out, say = config.out.absolute(), sys.stdout.write
    empty_own_folder(out)
    started = time.monotonic()
    say("drawing images: 4 classes of shapes, scenes with exact masks; and scikit-learn's handwritten digits\n")
    write_shapes(out / "images" / "shapes", classes=4, train_per_class=300, val_per_class=60)
    write_scenes(out / "images" / "scenes")
    write_digits(out / "images" / "digits")
    seconds, killed_at = _run(steps(out), out)
    from .demo_page import write_page

    say(write_page(out, start_of(out), seconds, killed_at, time.monotonic() - started))
    return 0


def _run(road: list[Step], out: Path) -> tuple[list[tuple[str, float]], int]:
    """Seconds of each step, and how far the killed training was. A step that fails ends the demo with its exit code."""
    seconds, killed_at = list[tuple[str, float]](), 0
    with ray_session(quiet=True):  # one Ray for the whole road: each start costs seconds
        for number, step in enumerate(road, 1):
            sys.stdout.write(f"\n[{number}/{len(road)}] {step.title}\n$ focusvit {shlex.join(step.argv)}\n")
            sys.stdout.flush()
            begun = time.monotonic()
            if step.killed:
                killed_at = kill_after_checkpoint(step.argv, out / "runs" / "demo")
                sys.stdout.write(f"killed after its checkpoint at {killed_at} samples\n")
            elif code := cli.main(step.argv):
                sys.stdout.write(f"\nthe demo stopped at step {number} ({step.title}), exit code {code}\n")
                raise SystemExit(code)
            seconds.append((step.title, time.monotonic() - begun))
    return seconds, killed_at


def kill_after_checkpoint(argv: list[str], run_dir: Path, timeout_s: float = 600) -> int:
    """Start the command as a process of its own, kill it and all its children without warning after the first
    checkpoint, and return how many samples that checkpoint has seen. Raises `UsageError` when it ends before."""
    run, until = RunDir(str(run_dir)), time.monotonic() + timeout_s
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    with (run_dir.parent / f"{run_dir.name}-killed.log").open("w") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "focusvit.cli", *argv], stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )  # fmt: skip
        try:
            while run.latest() is None:
                if child.poll() is not None or time.monotonic() > until:
                    raise UsageError(f"the training to be killed ended by itself; see {log.name}")
                time.sleep(0.1)
        finally:
            with suppress(ProcessLookupError):  # it has ended by itself, and so have its children
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    return run.latest() or 0


def empty_own_folder(out: Path) -> None:
    """Start from nothing, but never empty a folder that an earlier demo did not make."""
    if out.exists():
        if not (out / MARK).is_file() and any(out.iterdir()):
            raise UsageError(f"--out {out} holds files that no demo wrote. Name a new folder, or empty this one.")
        shutil.rmtree(out)
    out.mkdir(parents=True)
    (out / MARK).write_text("Made by 'focusvit demo', which empties this folder when it runs again.\n")
