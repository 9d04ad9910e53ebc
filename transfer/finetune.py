"""Fine-tuning as a protocol: the one training loop over a fixed, published grid; the best point on held-out samples.

AdamW, weight decay 0.05, drop path 0.1, 64 images a step, a tenth of the steps as warm-up, cosine to a hundredth; the
grid is learning rate {1e-4, 3e-4, 1e-3} x layer decay {0.65, 0.75, 1.0}. The chosen point is trained again on all
training samples, once for each seed, and only these last weights see the test images.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from focusvit.data.config import DataConfig
from focusvit.model.config import FocusViTConfig
from focusvit.runs.checkpoint import load_model, read_confusion
from focusvit.runs.checkpoint_record import record_at
from focusvit.runs.config_json import to_json
from focusvit.runs.run_dir import RunDir
from focusvit.train.config import TrainConfig
from focusvit.train.optim import OptimConfig
from focusvit.train.watch import DivergedError
from focusvit.weights.files import weights_hash
from pipeline.io import storage
from pipeline.shards.dataset import open_dataset
from transfer.features.features import model_batches, model_rows
from transfer.protocols.protocol import Fitted
from transfer.protocols.scoring import score
from transfer.tasks.measuring import attempted
from transfer.tasks.result import Result
from transfer.tasks.spec import Outcome, WorkSpec
from transfer.tasks.subset import write_subset

from .protocols import metrics
from .work import TaskRun

Train = Callable[[TrainConfig, str, str, str], None]
"""(config, data set, run directory, device): train to the end. `cluster` hands in one that uses Ray workers."""
FIT, CHOOSE, ALL = "fit", "choose", "all"


@dataclass(frozen=True, kw_only=True)
class FineTune:
    """The sweep. The same for every task: nothing in it looks at the task."""

    learning_rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3)
    layer_decays: tuple[float, ...] = (0.65, 0.75, 1.0)
    weight_decay: float = 0.05
    drop_path: float = 0.1
    steps: int = 5000
    batch: int = 64
    warmup_share: float = 0.1
    crop_scale: tuple[float, float] = (0.5, 1.0)
    flip: float = 0.5
    seeds: int = 3
    name: str = field(default="finetune", init=False)

    def config(self, run: TaskRun, num_samples: int, lr: float, decay: float, split: str, seed: int) -> TrainConfig:
        """One training of the sweep on `num_samples` samples of `split`, scored once at its end."""
        base, epochs = run.data, self.steps * self.batch / num_samples
        data = DataConfig(
            image_px=base.image_px, map_px=base.map_px, eval_crop_fraction=base.eval_crop_fraction,
            crop_scale=self.crop_scale, flip=self.flip, loader_workers=base.loader_workers, train_split=split,
            eval_split=CHOOSE,
        )  # fmt: skip
        model = dataclasses.replace(run.model.config, tokens=run.budget)
        if isinstance(model, FocusViTConfig):  # a host's blocks are its library's
            model = dataclasses.replace(model, drop_path=self.drop_path)
        return TrainConfig(
            model=model, data=data, epochs=epochs, global_batch=self.batch, seed=seed, eval_every_epochs=epochs,
            checkpoint_every_epochs=epochs, init_from=run.record.uri, log_every_steps=50, precision=run.precision,
            compile=False,  # many short trainings
            optim=OptimConfig(
                lr=lr, layer_decay=decay, weight_decay=self.weight_decay, warmup_epochs=self.warmup_share * epochs
            ),
        )  # fmt: skip


def published(suite: str, steps: int = 0) -> FineTune:
    """The sweep of a suite. VTAB-1k changes nothing in an image: position and size are what its tasks ask for."""
    if suite == "vtab1k":
        return FineTune(steps=steps or 2500, crop_scale=(1.0, 1.0), flip=0.0)
    if suite == "quick":
        return FineTune(steps=steps or 200, layer_decays=(0.75,))
    return FineTune(steps=steps or 5000)


def train_here(config: TrainConfig, data_uri: str, run_dir: str, device: str) -> None:
    """The default `Train`: in this process."""
    from focusvit.train.loop import train

    train(config, data_uri=data_uri, run_dir=run_dir, device=device)


def run_finetune(spec: WorkSpec, settings: FineTune, train: Train = train_here) -> Outcome:
    """Fine-tune on one task. Never raises for what the task or its data did: that becomes its list of failures."""
    return attempted(spec.task, f"{spec.task.name}, finetune", lambda: _FineTuneRun(spec, settings, train).run())


class _FineTuneRun(TaskRun):
    """The sweep on one task, with what its steps share."""

    def __init__(self, spec: WorkSpec, settings: FineTune, train: Train) -> None:
        super().__init__(spec)
        self.settings, self.train_to_end = settings, train
        self.outcome = Outcome(task=self.task, data_identity=self.outcome.data_identity)

    def run(self) -> Outcome:
        name = f"{self.task.name}, finetune"
        if self.multilabel:
            self.outcome.notes = [f"{self.task.name}: fine-tuning needs one class for each sample"]
            return self.outcome
        key = self._sweep_key()
        self.add("finetune", key, lambda: self._sweep(storage.join(self.spec.out, "finetune", key[:16])))
        lost = [row.chosen["diverged"] for row in self.outcome.rows if "diverged" in row.chosen]
        self.outcome.notes = [f"{name}: diverged and left out of the grid: {points}" for points in lost]
        return self.outcome

    def _sweep(self, folder: str) -> list[Result]:
        started = time.perf_counter()
        data = self._data(storage.join(folder, "data"))
        lr, decay, held_out, diverged = self._choose(folder, data)
        logits = [self._final(folder, data, lr, decay, seed) for seed in range(self.settings.seeds)]
        rows = self._scored(np.stack(logits, 1), lr, decay, held_out, time.perf_counter() - started)
        for row in rows if diverged else ():
            row.chosen["diverged"] = ", ".join(diverged)
        storage.remove_folder(folder)  # the sweep's checkpoints have served; the result is a file
        return rows

    def _sweep_key(self) -> str:
        return self.key(
            source=weights_hash(self.model),
            model=to_json(self.model.config),
            tokens=self.budget,
            splits={name: [split.identity, split.info.root_hash] for name, split in self.splits.items()},
            settings=dataclasses.asdict(self.settings),
            data=dataclasses.asdict(self.data) | {"loader_workers": 0},
            **self.numbers(),
        )

    def _data(self, folder: str) -> str:
        """The training samples as three splits: to fit on, to choose on, and both."""
        task = self.task
        train = self.splits[task.train]
        if task.held_out:
            held_out = self.splits[task.held_out]
            fit = [(train, np.arange(train.num_samples))]
            choose = [(held_out, np.arange(held_out.num_samples))]
        else:
            rows, chosen = self.drawn()
            fit, choose = [(train, rows)], [(train, chosen)]
        return write_subset(self.dataset, {FIT: fit, CHOOSE: choose, ALL: fit + choose}, folder)

    def _choose(self, folder: str, data: str) -> tuple[float, float, float, list[str]]:
        """(learning rate, layer decay, score on the held-out samples) of the best of the grid, the gentlest of equals,
        and the points that diverged. Raises `DivergedError` when all did."""
        trials, diverged = [], []
        for lr, decay in itertools.product(self.settings.learning_rates, self.settings.layer_decays):
            place = storage.join(folder, f"lr{lr:g}-decay{decay:g}")
            try:
                self._trained(place, data, lr, decay, FIT, seed=self.spec.seed)
            except DivergedError as error:
                diverged.append(f"lr {lr:g} x decay {decay:g}")
                last = error
                continue
            counts = read_confusion(record_at(_latest(place)))
            assert counts is not None  # a training that ended is scored
            trials.append((metrics.of_confusion(counts, self.task.metric), -lr, -decay))
        if not trials:
            raise DivergedError(
                f"all {len(diverged)} points of the grid diverged ({', '.join(diverged)}); last: {last}"
            )
        best, minus_lr, minus_decay = max(trials)
        return -minus_lr, -minus_decay, best, diverged

    def _trained(self, place: str, data: str, lr: float, decay: float, split: str, seed: int) -> None:
        num_samples = open_dataset(data).split(split).num_samples
        config = self.settings.config(self, num_samples, lr, decay, split, seed)
        self.train_to_end(config, data, place, self.spec.device)

    def _final(self, folder: str, data: str, lr: float, decay: float, seed: int) -> np.ndarray:
        """Test logits float32 (N, C) of one training on all training samples. Labels are not looked at."""
        place = storage.join(folder, f"final-{seed}")
        self._trained(place, data, lr, decay, ALL, seed=self.spec.seed + seed)
        device = self.spec.device
        model, _ = load_model(_latest(place), device)
        test, size = self.splits[self.task.test], self.spec.batch_size
        batches = model_batches(model, test, self.data, batch_size=size, tokens=self.budget, device=device)
        return np.concatenate([logits for _, logits in model_rows(model, batches, device, self.precision)])

    def _scored(self, logits: np.ndarray, lr: float, decay: float, held_out: float, fit_s: float) -> list[Result]:
        """The row of the table; logits (N, seeds, C). The test labels are opened here, once."""
        settings = self.settings
        chosen: dict[str, Any] = {
            "lr": lr, "layer_decay": decay, "steps": settings.steps, "seeds": settings.seeds,
            f"held_out_{self.task.metric}": held_out,
        }  # fmt: skip
        fitted = [
            Fitted(predict=partial(np.take, indices=seed, axis=1), chosen=chosen) for seed in range(settings.seeds)
        ]
        num_train = sum(self.task.num_rows or (len(self.truth[self.task.train]),))
        num_train += len(self.truth[self.task.held_out]) if self.task.held_out else 0
        self.open_test("checkpoint finetune")
        return score(
            fitted, logits, self.truth[self.task.test], self.task, features="checkpoint", protocol=settings.name,
            classes=self.dataset.classes, num_train=num_train, fit_s=fit_s,
        )  # fmt: skip


def _latest(run_dir: str) -> str:
    """The last checkpoint of a training that ended."""
    run = RunDir(run_dir)
    latest = run.latest()
    assert latest is not None
    return run.checkpoint_uri(latest)
