"""`focusvit demo`: every verb of the road in its order, on embedded data or on the user's own image folder.

Each step is an ordinary command, printed before it runs, so the demo is also the tutorial.
"""

import hashlib
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from focusvit import cli
from pipeline.commandline import parse
from pipeline.errors import UsageError

from .ray_session import ray_session

MARK = "focusvit-demo.txt"  # stands in a folder that this command made and may therefore empty


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Raw images in, reviewed runs out, in a few minutes on two cores."""

    source: Path | None = None
    """Your own image folder: class folders, or train/ and val/ with class folders. Default: embedded data."""
    out: Path = Path("demo")
    """Folder for everything the demo writes; emptied first if an earlier demo made it."""
    max_samples: int = 1600
    """Most images taken from --source for training (a quarter of it for validation)."""
    workers: int = 2
    """Training workers."""

    def __post_init__(self) -> None:
        if self.max_samples < 8:
            raise ValueError(f"--max-samples is {self.max_samples}: a training needs at least 8 images.")
        if self.workers < 1:
            raise ValueError(f"--workers is {self.workers}: use 1 or more.")


@dataclass(frozen=True)
class Step:
    """One command of the road and the line that introduces it."""

    title: str
    argv: list[str]


def steps(config: DemoConfig, out: Path) -> list[Step]:
    """The road as data. Paths are absolute: workers run elsewhere."""
    images, shards, runs = out / "images", out / "shards", out / "runs"
    tracking = ["--tracking-uri", f"sqlite:///{out / 'mlflow.db'}"]
    bounded = config.source is not None
    road: list[Step] = []
    for name in ("pretraining", "downstream"):
        for split, share in (("train", 1), ("val", 4)):
            bound = ["--max-samples", str(max(4, config.max_samples // share))] if bounded else []
            argv = ["preprocess", "--source", str(images / name), "--out", str(shards / name), "--split", split]
            road.append(Step(f"{name} images -> shards ({split})", [*argv, *bound]))
        if bounded:
            break
    downstream = shards / ("pretraining" if bounded else "downstream")
    data, checkpoint = ["--data", str(shards / "pretraining")], ["--checkpoint", str(runs / "pretrain")]
    sheet = ["show", str(shards / "pretraining"), "--split", "val", "--out", str(out / "superpixels.png")]
    train = ["pretrain", "demo", *data, "--run-dir", str(runs / "pretrain"), "--workers", str(config.workers)]
    tune = ["finetune", *checkpoint, "--data", str(downstream), "--run-dir", str(runs / "finetune")]
    # A mirrored digit is another digit, and one cut at the edge may be too.
    digits = ["--epochs", "8", "--optim.lr", "2e-3", "--data.flip", "0", "--data.crop-scale", "0.7", "1.0"]
    task = ["--task", f"{'own' if bounded else 'digits'}={downstream}", "--out", str(runs / "transfer")]
    return [
        *road,
        Step("look at the superpixels", sheet),
        Step("pretrain", [*train, *tracking]),
        Step("evaluate at several token budgets", ["evaluate", *checkpoint, *data, "--tokens", "9,16,25,36"]),
        Step("transfer suite", ["transfer", *checkpoint, "--suite", "quick", *task, *tracking]),
        Step("fine-tune", [*tune, "--workers", str(config.workers), *tracking, *([] if bounded else digits)]),
        Step("report", ["report", str(runs), "--out", str(out / "report")]),
    ]


def main(argv: list[str]) -> int:
    config = parse(DemoConfig, argv, prog="focusvit demo")
    from pipeline.sources.embedded import write_digits, write_shapes  # here, for a --help that loads no OpenCV

    out = config.out.absolute()
    say = sys.stdout.write
    _empty_own_folder(out)
    started = time.monotonic()
    if config.source is None:
        say("writing the embedded images: 8 classes of generated shapes, and scikit-learn's handwritten digits\n")
        write_shapes(out / "images" / "pretraining")
        write_digits(out / "images" / "downstream")
    else:
        _link_images(config.source.absolute(), out / "images" / "pretraining")
    code = _run(steps(config, out), say)
    if code == 0:
        _say_where(out, time.monotonic() - started, say)
    return code


def _run(road: list[Step], say: Callable[[str], object]) -> int:
    times: list[tuple[str, float]] = []
    with ray_session():  # one Ray for the whole road: each start costs seconds
        for number, step in enumerate(road, 1):
            say(f"\n[{number}/{len(road)}] {step.title}\n$ focusvit {shlex.join(step.argv)}\n")
            sys.stdout.flush()
            begun = time.monotonic()
            code = cli.main(step.argv)
            times.append((step.title, time.monotonic() - begun))
            if code != 0:
                say(f"\nthe demo stopped at step {number} ({step.title}), exit code {code}\n")
                return code
    say("\n" + "\n".join(f"{seconds:7.1f} s  {title}" for title, seconds in times) + "\n")
    return 0


def _say_where(out: Path, elapsed_s: float, say: Callable[[str], object]) -> None:
    say(f"\ndemo finished in {elapsed_s:.0f} s. Everything is in {out}\n")
    store = f"sqlite:///{out / 'mlflow.db'}"
    rows = {
        "checkpoint": out / "runs" / "pretrain",
        "superpixels": out / "superpixels.png",
        "report": out / "report",
        "UI": f"focusvit ui --tracking-uri {shlex.quote(store)}",
    }
    say("".join(f"  {name:<12} {place}\n" for name, place in rows.items()))


def _empty_own_folder(out: Path) -> None:
    """Start from nothing, but never empty a folder that an earlier demo did not make."""
    if out.exists():
        if not (out / MARK).is_file() and any(out.iterdir()):
            raise UsageError(f"--out {out} holds files that no demo wrote. Name a new folder, or empty this one.")
        shutil.rmtree(out)
    out.mkdir(parents=True)
    (out / MARK).write_text("Made by 'focusvit demo', which empties this folder when it runs again.\n")


def _link_images(source: Path, to: Path) -> None:
    """Mirror an image folder with links. Class folders alone are divided by a hash of the file's name, 4 to 1."""
    if not source.is_dir():
        raise UsageError(f"--source {source} is not a folder. Name a folder with one folder of images per class.")
    if (source / "train").is_dir() and (source / "val").is_dir():
        to.parent.mkdir(parents=True, exist_ok=True)
        to.symlink_to(source, target_is_directory=True)
        return
    folders = [folder for folder in sorted(source.iterdir()) if folder.is_dir() and any(folder.iterdir())]
    if len(folders) < 2:
        raise UsageError(
            f"--source {source} holds {len(folders)} class folders with images; at least 2 are needed. "
            "Put the images of each class into a folder of their own."
        )
    for folder in folders:
        for path in sorted(path for path in folder.iterdir() if path.is_file()):
            digest = hashlib.sha256(f"{folder.name}/{path.name}".encode()).digest()
            target = to / ("val" if digest[0] % 5 == 0 else "train") / folder.name
            target.mkdir(parents=True, exist_ok=True)
            (target / path.name).symlink_to(path)
