"""`python -m tests.benchmarks starts`: what a start is worth on data sets that it never saw: frozen, and fine-tuned.

No validation image chooses anything but the last column: kNN has nothing to choose, the logistic probe chooses its C on
held-out training images, and the weights after the last step are scored whatever came before them.
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
from focusvit.precision import Precision
from focusvit.predict.compatible import data_config
from focusvit.recipes.small import finetune
from focusvit.runs.checkpoint import load_checkpoint, load_model
from focusvit.runs.checkpoint_record import Checkpoint
from focusvit.runs.metrics_log import read_points
from focusvit.runs.run_dir import RunDir
from focusvit.score.intervals import wilson
from focusvit.train.config import TrainConfig
from focusvit.train.loop import train
from focusvit.train.optim import OptimConfig
from pipeline.commandline import Repeatable
from pipeline.errors import UsageError
from pipeline.io import storage
from pipeline.shards.dataset import Dataset, open_dataset
from tests.benchmarks.record import Record, RecordConfig, begin
from tests.benchmarks.report import Table
from transfer.features.features import model_batches, model_rows
from transfer.features.hold_out import hold_out
from transfer.protocols.knn import Knn
from transfer.protocols.logistic import Logistic
from transfer.protocols.protocol import Labelled, Protocol

COLUMNS = [
    "start",
    "kNN",
    "logistic probe",
    "fine-tuning begins at",
    "after its last step",
    "best, kept",
    "CPU s of it",
]


@dataclass(frozen=True, kw_only=True)
class StartsConfig(RecordConfig):
    """Each start on each data set, next to the same network without training."""

    checkpoint: Repeatable[tuple[str, ...]] = ()
    """a name of `focusvit models`, a run or a checkpoint (repeat the option for more); default: focusvit-tiny"""
    data: Repeatable[tuple[str, ...]]
    """a data set with train, and val or test (repeat the option for more)"""
    epochs: float | None = None
    """of each fine-tuning, and of the training from scratch next to it; default: what `focusvit finetune` takes"""
    batch: int | None = None
    """images of a step; default: what `focusvit finetune` takes"""
    precision: Precision = "auto"
    """of features and trainings"""
    untrained: bool = True
    """a row for the first start's network without its weights, trained as long from scratch"""
    rows: str = ""
    """a folder for finished rows: the same command takes them from there, so that several sittings make one table"""

    def __post_init__(self) -> None:
        if (self.epochs is not None and self.epochs <= 0) or (self.batch is not None and self.batch < 1):
            raise ValueError("--epochs must be positive and --batch at least 1")

    def asked(self, start: TrainConfig, data: Dataset) -> TrainConfig:
        """The training as it is asked for."""
        epochs, batch = self.epochs or start.epochs, self.batch or start.global_batch
        optim = start.optim if self.epochs is None else dataclasses.replace(start.optim, warmup_epochs=epochs / 10)
        views = dataclasses.replace(start.data, eval_split=scored_split(data))
        run = dataclasses.replace(start, epochs=epochs, global_batch=batch, data=views)
        return dataclasses.replace(run, optim=optim, precision=self.precision)


def scored_split(data: Dataset) -> str:
    """`val`, or `test` where a data set has that one alone."""
    return "val" if "val" in data.splits else "test"


def main(argv: list[str]) -> int:
    config, record = begin("starts", StartsConfig, argv, ("torch", "numpy", "scipy"))
    record.facts |= {"threads": torch.get_num_threads(), "precision": config.precision}
    for place in config.data:
        data = open_dataset(storage.resolve(place))
        record.add(table(config, data, storage.name_of(data.uri), record))
    return record.end()


def table(config: StartsConfig, data: Dataset, name: str, record: Record) -> Table:
    rows, num = [], data.split("train").num_samples
    starts = config.checkpoint or ("focusvit-tiny",)
    for start in starts:
        label = start if "/" not in start else storage.name_of(start.rstrip("/"))
        model, found = load_model(checkpoint_place(start))
        rows.append(_row(config, record, f"{name} {label}", label, model, found, finetune(found, num), data))
    if config.untrained:
        model, found = load_model(checkpoint_place(starts[0]))
        torch.manual_seed(0)
        fresh = dataclasses.replace(
            finetune(found, num), init_from=None, head_start="random", optim=OptimConfig(lr=1e-3)
        )
        untrained, label = FocusViT(model.config).eval(), "the first, without training"
        rows.append(_row(config, record, f"{name} without", label, untrained, found, fresh, data))
    counts, run = np.bincount(data.split(scored_split(data)).class_ids), config.asked(finetune(found, num), data)
    scratch = "; without training: the same steps from scratch, learning rate 1e-3" if config.untrained else ""
    return Table(
        title=f"{name}: {data.split('train').num_samples} images of {len(data.classes)} classes to learn from, "
        f"{counts.sum()} to score",
        columns=COLUMNS,
        rows=rows,
        note=f"Top-1 with its 95 % interval (Wilson); the commonest class has {counts.max() / counts.sum():.1%}. "
        f"Fine-tuned: {run.epochs:g} epochs of batch {run.global_batch}, from the probe's head{scratch}. Scored at its "
        "begin and after each epoch; the last column is the highest of these, chosen on the images that it is of.",
    )


def _row(
    config: StartsConfig,
    record: Record,
    name: str,
    label: str,
    model: FocusViT,
    found: Checkpoint,
    start: TrainConfig,
    data: Dataset,
) -> list[str]:
    """A row of the table: made now, or of an earlier sitting at the same commit with the same settings."""
    run = config.asked(start, data)
    asked = repr((run, record.facts["commit"], data.split("train").identity))
    place = storage.join(storage.resolve(config.rows), f"{name}.json") if config.rows else ""
    if place and storage.exists(place):
        kept = storage.read_json(place)
        if kept["asked"] == asked:
            return list(kept["row"])
    row = [label, *frozen(model, found, data, config.precision), *tuned(run, data)]
    if place:
        storage.put_json(place, {"asked": asked, "row": row})
    return row


def frozen(model: FocusViT, record: Checkpoint, data: Dataset, precision: Precision = "auto") -> tuple[str, str]:
    """kNN and logistic probe on the features of a model."""
    view, found = data_config(record, loader_workers=0), {}
    scored = scored_split(data)
    for name in ("train", scored):
        split = data.split(name)
        values = np.zeros((split.num_samples, model.config.width), np.float32)
        batches = model_batches(model, split, view, batch_size=64, tokens=model.config.tokens)
        for ids, rows in model_rows(model.features, batches, "cpu", precision):
            values[ids] = rows
        found[name] = Labelled(values=values, truth=split.class_ids.astype(np.int64), num_classes=len(data.classes))
    fit, choose = (found["train"].rows(part) for part in hold_out(found["train"].truth, 0.2, seed=0))
    protocols: tuple[Protocol, ...] = (Knn(), Logistic())
    scores = []
    for protocol in protocols:
        (fitted,) = protocol.fit(fit, choose)
        answers = np.asarray(fitted.predict(found[scored].values)).argmax(1)
        scores.append(_share(int((answers == found[scored].truth).sum()), len(answers)))
    return scores[0], scores[1]


def tuned(run: TrainConfig, data: Dataset) -> tuple[str, str, str, str]:
    """Top-1 before the first step, after the last one, and of the checkpoint that is kept; CPU seconds of it all."""
    if data.split("train").num_samples < run.global_batch:
        raise UsageError(f"{data.uri} has fewer training images than --batch {run.global_batch}.")
    total = data.split(run.data.eval_split).num_samples
    with tempfile.TemporaryDirectory() as folder:
        place, begun = str(Path(folder) / "run"), time.process_time()
        last = train(run, data_uri=data.uri, run_dir=place)["val/top1"]
        seconds = time.process_time() - begun
        scored = {point["samples"]: point["values"] for point in read_points(RunDir(place))}
        first, best = scored.get(0, {}).get("val/top1"), load_checkpoint(place).metrics["val/top1"]
    shares = [_share(round(top1 * total), total) for top1 in (last, best)]
    return "chance" if first is None else _share(round(first * total), total), *shares, f"{seconds:.0f}"


def _share(right: int, total: int) -> str:
    low, high = wilson(right, total)
    return f"{right / total:.1%} ({low:.1%}..{high:.1%})"
