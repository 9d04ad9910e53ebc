"""`python -m tests.benchmarks starts`: what a start is worth on data sets that it never saw: frozen, and fine-tuned.

No validation image chooses anything: kNN has nothing to choose, the logistic probe chooses its C on held-out training
images, and a fine-tuning is scored once, after its last step.
"""

import dataclasses
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from focusvit.box.names import checkpoint_place
from focusvit.model.model import FocusViT
from focusvit.predict.compatible import data_config
from focusvit.recipes.small import finetune
from focusvit.runs.checkpoint import load_model
from focusvit.runs.checkpoint_record import Checkpoint
from focusvit.score.intervals import wilson
from focusvit.train.config import TrainConfig
from focusvit.train.loop import train
from focusvit.train.optim import OptimConfig
from pipeline.commandline import Repeatable
from pipeline.errors import UsageError
from pipeline.io import storage
from pipeline.shards.dataset import Dataset, open_dataset
from tests.benchmarks.record import RecordConfig, begin
from tests.benchmarks.report import Table
from transfer.features.features import model_batches, model_features
from transfer.features.hold_out import hold_out
from transfer.protocols.knn import Knn
from transfer.protocols.logistic import Logistic
from transfer.protocols.protocol import Labelled, Protocol

COLUMNS = ["start", "kNN", "logistic probe", "fine-tuned", "CPU s of that"]


@dataclass(frozen=True, kw_only=True)
class StartsConfig(RecordConfig):
    """Each start on each data set, next to the same network without training."""

    checkpoint: Repeatable[tuple[str, ...]] = ()
    """a name of `focusvit models`, a run or a checkpoint (repeat the option for more); default: focusvit-tiny"""
    data: Repeatable[tuple[str, ...]]
    """a data set with train and val (repeat the option for more)"""
    epochs: float = 10
    """of each fine-tuning, and of the training from scratch next to it"""
    batch: int = 32

    def __post_init__(self) -> None:
        if self.epochs <= 0 or self.batch < 1:
            raise ValueError("--epochs must be positive and --batch at least 1")


def main(argv: list[str]) -> int:
    config, record = begin("starts", StartsConfig, argv, ("torch", "numpy", "scipy"))
    record.facts |= {"threads": torch.get_num_threads()}
    for place in config.data:
        data = open_dataset(storage.resolve(place))
        record.add(table(config, data, storage.name_of(data.uri)))
    return record.end()


def table(config: StartsConfig, data: Dataset, name: str) -> Table:
    rows = []
    starts = config.checkpoint or ("focusvit-tiny",)
    for start in starts:
        model, found = load_model(checkpoint_place(start))
        label = start if "/" not in start else storage.name_of(start.rstrip("/"))
        begun = finetune(found)
        rows.append([label, *frozen(model, found, data), *tuned(begun, config, data)])
    model, found = load_model(checkpoint_place(starts[0]))
    torch.manual_seed(0)
    fresh = dataclasses.replace(finetune(found), init_from=None, head_start="random", optim=OptimConfig(lr=1e-3))
    untrained = FocusViT(model.config).eval()
    rows.append(["the first, without training", *frozen(untrained, found, data), *tuned(fresh, config, data)])
    counts = np.bincount(data.split("val").class_ids)
    return Table(
        title=f"{name}: {data.split('train').num_samples} images of {len(data.classes)} classes to learn from, "
        f"{counts.sum()} to score",
        columns=COLUMNS,
        rows=rows,
        note=f"Top-1 with its 95 % interval (Wilson); the commonest class has {counts.max() / counts.sum():.1%}. "
        f"Fine-tuned: {config.epochs:g} epochs of batch {config.batch}, from the probe's head; without training: the "
        "same steps from scratch, learning rate 1e-3. Scored once, after the last step.",
    )


def frozen(model: FocusViT, record: Checkpoint, data: Dataset) -> tuple[str, str]:
    """kNN and logistic probe on the features of a model."""
    view, found = data_config(record, loader_workers=0), {}
    for name in ("train", "val"):
        split = data.split(name)
        values = np.zeros((split.num_samples, model.config.width), np.float32)
        batches = model_batches(model, split, view, batch_size=64, tokens=model.config.tokens)
        for ids, rows in model_features(model, batches, "cpu"):
            values[ids] = rows
        found[name] = Labelled(values=values, truth=split.class_ids.astype(np.int64), num_classes=len(data.classes))
    fit, choose = (found["train"].rows(part) for part in hold_out(found["train"].truth, 0.2, seed=0))
    protocols: tuple[Protocol, ...] = (Knn(), Logistic())
    scores = []
    for protocol in protocols:
        (fitted,) = protocol.fit(fit, choose)
        answers = np.asarray(fitted.predict(found["val"].values)).argmax(1)
        scores.append(_share(int((answers == found["val"].truth).sum()), len(answers)))
    return scores[0], scores[1]


def tuned(start: TrainConfig, config: StartsConfig, data: Dataset) -> tuple[str, str]:
    """(top-1 after a training of the given length, its CPU seconds)."""
    length = {"epochs": config.epochs, "eval_every_epochs": config.epochs, "checkpoint_every_epochs": config.epochs}
    optim = dataclasses.replace(start.optim, warmup_epochs=min(1.0, config.epochs / 10))
    run = dataclasses.replace(start, global_batch=config.batch, optim=optim, **length)
    if data.split("train").num_samples < config.batch:
        raise UsageError(f"{data.uri} has fewer training images than --batch {config.batch}.")
    with tempfile.TemporaryDirectory() as folder:
        begun = time.process_time()
        scores = train(run, data_uri=data.uri, run_dir=str(Path(folder) / "run"))
        seconds = time.process_time() - begun
    total = data.split("val").num_samples
    return _share(round(scores["val/top1"] * total), total), f"{seconds:.0f}"


def _share(right: int, total: int) -> str:
    low, high = wilson(right, total)
    return f"{right / total:.1%} ({low:.1%}..{high:.1%})"
