"""`focusvit train FOLDER`: one command from a folder of photos to a model. It runs the other verbs and prints them.

What it decided is kept in `plan.json`, so that the same command goes on where it stopped.
"""

import dataclasses
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from focusvit import cli
from focusvit.box.names import checkpoint_place, names
from pipeline.commandline import parse
from pipeline.errors import UsageError, first_line
from pipeline.io import storage
from pipeline.io.json_text import json_text
from pipeline.io.machine import usable_cpus
from pipeline.shards.dataset import DATASET_FILE
from pipeline.sources.detect import look, look_for_share
from pipeline.sources.splits import wanted_split

from .options import TrainFolderConfig

BOX_START = "focusvit-tiny"
FROM_SCRATCH = {"cpu": "tiny_imagenet_cpu", "gpu": "focusvit_small_in1k"}
_REFUSED = 2  # the exit code of wrong usage
LARGE = 50_000
"""images from which a GPU trains a larger model from nothing better than it fine-tunes a small one"""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What was decided once, at the first start."""

    source: str
    val_share: float | None
    """share of the images held out; None = the folder has a validation split of its own"""
    start: str
    """a checkpoint to fine-tune, or '' for a training from scratch"""
    recipe: str
    batch: int
    epochs: float
    why: tuple[str, ...]
    """a line for each decision"""


def main(argv: list[str]) -> int:
    config = parse(TrainFolderConfig, argv, prog="focusvit train")
    source = storage.resolve(str(config.folder))
    out = Path(storage.resolve(str(config.out or f"{storage.name_of(source)}-focusvit")))
    share = _val_share(source, str(out / "shards"), config.val_share)
    if not storage.exists(str(out / "shards" / DATASET_FILE)):
        _check_classes(source, str(out / "shards"))
    begun = time.monotonic()
    for split in ("train", "val"):
        argv = ["preprocess", "--source", source, "--out", str(out / "shards"), "--split", split, "--local"]
        argv += ["--on-error", config.on_error]
        _run([*argv, *(["--val-share", f"{share:g}"] if share else [])], out)
    plan = _planned(config, source, share, out)
    sys.stdout.write("".join(f"plan      {line}\n" for line in plan.why))
    _run(_training(plan, out), out)
    _run(["evaluate", "--checkpoint", str(out / "run"), "--data", str(out / "shards")], out)
    from .train_page import write_page

    found = write_page(plan.source, plan.why, out, time.monotonic() - begun)
    sys.stdout.write(found)
    return 0


def _run(argv: list[str], out: Path) -> None:
    """Run a verb, printed first. A verb that did not do its work ends this command with its exit code."""
    sys.stdout.write(f"\n$ focusvit {shlex.join(argv)}\n")
    sys.stdout.flush()
    code = cli.main(argv)
    if code:
        how = (  # of a request that does not fit what an earlier one began, the verb's own advice is too narrow
            f"where photos or options changed since the first start, name another --out or remove {out}"
            if code == _REFUSED
            else "the same command goes on from there"
        )
        sys.stderr.write(f"focusvit train stopped at `focusvit {argv[0]}`; {how}\n")
        raise SystemExit(code)


def _val_share(source: str, out: str, asked: float) -> float | None:
    """The share to hold out; None where the folder has a validation split. Raises `UsageError` for an odd folder."""
    if wanted_split(look(source, "train", out).splits, "val"):
        return None
    look_for_share(source, "train", out)
    return asked


def _check_classes(source: str, out: str) -> None:
    """Raises `UsageError` where nothing can be told apart, before any work."""
    listed = look(source, "train", out).source
    found = {name for image in listed.images() for name in (image.class_name, *image.labels) if name is not None}
    if len(listed.classes or found) < 2:
        raise UsageError(
            f"{source} holds images of {len(found)} classes, and a classifier needs at least 2: put the images of each "
            "class into a folder of their own. Images without classes: `focusvit pretrain distill_features`."
        )


def _planned(config: TrainFolderConfig, source: str, share: float | None, out: Path) -> Plan:
    """The plan of an earlier start, or a new one. Raises `UsageError` when another folder was trained in `out`, and for
    a damaged plan."""
    place = str(out / "plan.json")
    if storage.exists(place):
        try:
            values: dict[str, Any] = storage.read_json(place)
            plan = Plan(**{**values, "why": tuple(values["why"])})
        except (ValueError, TypeError, KeyError) as error:
            raise UsageError(f"{place} is damaged ({first_line(error)}). Remove it, or name another --out.") from None
        if plan.source != source:
            raise UsageError(f"{out} holds a training on {plan.source}. Name another folder with --out.")
        sys.stdout.write(f"plan      that of the first start, in {place}; for other settings name another --out\n")
        return plan
    plan = _decided(config, share, out)
    storage.put(place, json_text(dataclasses.asdict(plan)).encode())
    return plan


def _decided(config: TrainFolderConfig, share: float | None, out: Path) -> Plan:
    import torch

    from pipeline.shards.dataset import open_dataset

    data = open_dataset(str(out / "shards"))
    num, classes = data.split("train").num_samples, len(data.classes)
    device = "gpu" if torch.cuda.is_available() else "cpu"
    scratch = config.checkpoint == "none" or (config.checkpoint == BOX_START and BOX_START not in names())
    if config.checkpoint == BOX_START and device == "gpu" and num >= LARGE:
        scratch = True
    start = "" if scratch else checkpoint_place(config.checkpoint)
    recipe = FROM_SCRATCH[device] if scratch else "finetune"
    batch = max(8, min(64, num // 20)) if device == "cpu" else max(8, min(256, num // 20))
    rate = images_per_second(start, recipe, classes, min(batch, 16), "cuda" if device == "gpu" else "cpu")
    epochs = config.epochs or float(max(3, min(60 if scratch else 20, round(60 * config.minutes * rate / num))))
    minutes = epochs * num / rate / 60
    held = "the folder's own validation split" if share is None else f"{share:.0%} held out by a hash of their names"
    how = f"from the weights of {config.checkpoint}" if start else f"from scratch, recipe {recipe}"
    return Plan(
        source=storage.resolve(str(config.folder)), val_share=share, start=start, recipe=recipe, batch=batch,
        epochs=epochs,
        why=(
            f"{num} images of {classes} classes to learn from; scored on {held}",
            f"{how}, because " + (
                f"{num} images are few for a training from nothing" if start
                else "that was asked for" if config.checkpoint == "none"
                else f"{num} images on a GPU suffice for it" if device == "gpu"
                else f"this installation has no {BOX_START}"
            ),
            f"{epochs:g} epochs in batches of {batch}: about {minutes:.1f} minutes at the {rate:.0f} images a second "
            f"that one training step took here ({device}, {usable_cpus()} CPUs)",
        ),
    )  # fmt: skip


def images_per_second(start: str, recipe_name: str, num_classes: int, batch: int, device: str) -> float:
    """How fast this machine trains: the faster of two timed steps."""
    from focusvit.drop_in.host_model import build_model
    from focusvit.model.cost import example_inputs, time_calls
    from focusvit.recipes.small import finetune, recipe
    from focusvit.runs.checkpoint import load_checkpoint

    config = finetune(load_checkpoint(start)) if start else recipe(recipe_name)
    model = build_model(dataclasses.replace(config.model, num_classes=num_classes)).to(device).train()
    images, maps = example_inputs(model.config, batch, device=device)
    timed = time_calls({"step": lambda: model(images, maps).logsumexp(1).sum().backward()}, 2, device)
    return batch / min(timed["step"])


def _training(plan: Plan, out: Path) -> list[str]:
    """The command of the training: of all that a recipe fixes, only its length and its batch are the folder's."""
    place = ["--data", str(out / "shards"), "--run-dir", str(out / "run"), "--local"]
    store = ["--tracking-uri", f"sqlite:///{out / 'mlflow.db'}"]
    length = ["--epochs", f"{plan.epochs:g}", "--global-batch", str(plan.batch)]
    verb = ["finetune", "--checkpoint", plan.start] if plan.start else ["pretrain", plan.recipe]
    warmup = ["--optim.warmup-epochs", f"{min(1.0, plan.epochs / 10):g}"]
    return [*verb, *place, *store, *length, *warmup]
