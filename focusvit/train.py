"""The training loop. One function, read downwards; it knows nothing of Ray or MLflow.

Pretraining and fine-tuning are this loop; one process or many run it with their rank. Everything it decides is a
function of the config, the data set and the number of samples seen, so a stopped run goes on as if it had not stopped.
"""

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from pipeline.dataset import Dataset, Split, open_dataset
from pipeline.errors import DataError, UsageError

from . import ranks
from .batch import Batch
from .config_json import to_json
from .evaluate import tally
from .learner import Learner
from .loader import EvalLoader, TrainLoader
from .meters import Meters
from .optim import lr_share, set_lr
from .run import MetricsLog, RunDir
from .tally import Tally
from .train_config import TrainConfig
from .train_step import train_step

__all__ = ["TrainConfig", "facts_of", "for_dataset", "train"]

log = logging.getLogger(__name__)
OnCheckpoint = Callable[[int, dict[str, float]], None]


def for_dataset(config: TrainConfig, data: Dataset) -> TrainConfig:
    """The config with the number of classes that the data set has."""
    model = dataclasses.replace(config.model, num_classes=len(data.classes))
    return dataclasses.replace(config, model=model)


def facts_of(config: TrainConfig, data: Dataset) -> dict[str, Any]:
    """What else must stay the same for a run to go on: the identity of its data."""
    train_split = data.split(config.data.train_split)
    return {"data_identity": train_split.identity, "num_classes": len(data.classes)}


def train(
    config: TrainConfig,
    *,
    data_uri: str,
    run_dir: str,
    device: torch.device | str = "cpu",
    rank: int = 0,
    world_size: int = 1,
    on_checkpoint: OnCheckpoint | None = None,
) -> dict[str, float]:
    """Train to the end, or go on with the run in `run_dir`, and return the last scores.

    With `world_size` > 1 a process group must be running. `on_checkpoint(samples_seen, metrics)` is called on every
    rank after each checkpoint. Raises `UsageError` when `run_dir` holds another run, `DataError` when too many samples
    do not decode.
    """
    device = torch.device(device)
    data = open_dataset(data_uri)
    train_split, eval_split = data.split(config.data.train_split), data.split(config.data.eval_split)
    config = for_dataset(config, data)
    _check_split(train_split)

    run = RunDir(run_dir)
    if rank == 0:
        run.prepare(to_json(config), facts_of(config, data))
    ranks.barrier()

    learner = Learner(config, device)
    learner.start(run, data)
    model: Any = learner.model
    if config.compile:
        model = torch.compile(model)
    if world_size > 1:
        model = DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)

    num_samples, batch_size = train_split.num_samples, config.global_batch
    num_steps = config.num_steps(num_samples)
    score_at = config.milestones(num_samples, config.eval_every_epochs)
    save_at = config.milestones(num_samples, config.checkpoint_every_epochs) | score_at
    warmup = config.optim.warmup_epochs * num_samples
    shown: dict[str, Any] = {"tokens": config.model.tokens, "with_maps": config.model.needs_maps}
    loader = TrainLoader(
        train_split,
        config.data,
        seed=config.seed,
        global_batch=batch_size,
        rank=rank,
        world_size=world_size,
        start_samples=learner.samples_seen,
        total_samples=num_steps * batch_size,
        token_budgets=config.token_budgets,
        pin_memory=device.type == "cuda",
        **shown,
    )
    eval_batches = EvalLoader(
        eval_split, config.data, batch_size=_eval_batch(config, world_size), rank=rank, world_size=world_size, **shown
    )
    points = MetricsLog(run) if rank == 0 else None
    meters = Meters(config, device)

    for batch in meters.waiting(loader):
        step = learner.samples_seen // batch_size + 1
        seen = step * batch_size
        learner.seed_step(rank)
        lr = config.optim.lr * lr_share(seen, warmup, num_steps * batch_size, config.optim.final_lr_share)
        set_lr(learner.optimizer, lr)
        sums = train_step(
            model,
            learner.optimizer,
            _checked(batch, config, step).to(device, non_blocking=True),
            global_batch=batch_size,
            world_size=world_size,
            micro_batch=config.micro_batch,
            label_smoothing=config.label_smoothing,
            loss=config.loss,
            clip_norm=config.optim.clip_norm,
            bf16=config.bf16(device.type),
        )
        learner.stepped(seen)
        meters.add(sums, batch)

        if step == 1 or step % config.log_every_steps == 0 or step in save_at:
            values = meters.point(lr, epoch=seen / num_samples)
            _check_damage(meters.num_replaced, seen, config, train_split)
            if points:
                points.append(seen, values)
        if step in score_at:
            with meters.paused(), learner.scored_weights():
                scores = _score(learner, eval_batches, device)
            learner.metrics = {
                f"val/{name}": value for name, value in scores.metrics().items() if name != "num_samples"
            }
            if points:
                points.append(seen, learner.metrics)
                run.put_array("confusion.npy", scores.confusion)
        if step in save_at:
            with meters.paused():
                if points:
                    points.flush()
                    learner.save(run, data, metrics=learner.metrics if step in score_at else {})
                    run.prune()
                if on_checkpoint:
                    on_checkpoint(seen, learner.metrics)
    if learner.samples_seen < num_steps * batch_size:
        raise RuntimeError(f"the loader ended after {learner.samples_seen} of {num_steps * batch_size} samples")
    return {**learner.metrics, "samples_seen": float(learner.samples_seen)}


def _score(learner: Learner, batches: EvalLoader, device: torch.device) -> Tally:
    """The sums over the eval split, over all ranks; `metrics()` of them asserts that each sample was counted once."""
    scores = tally(
        learner.model,
        batches,
        num_samples=batches.num_samples,
        num_classes=batches.num_classes,
        device=device,
        bf16=learner.config.bf16(device.type),
    )
    scores.all_reduce(ranks.sum_array)
    return scores


def _eval_batch(config: TrainConfig, world_size: int) -> int:
    return max(1, min(256, config.micro_batch or config.global_batch // world_size))


def _check_split(split: Split) -> None:
    if (split.class_ids < 0).any():
        raise UsageError(
            f"{int((split.class_ids < 0).sum())} samples of split '{split.name}' have no class, and this training is "
            "supervised. Preprocess a source with class folders or labels."
        )


def _checked(batch: Batch, config: TrainConfig, step: int) -> Batch:
    """Look at the values of the first batches only: a wrong loader is wrong at once, and the check costs time."""
    return batch.check(config.model.num_classes) if step <= 2 else batch


def _check_damage(num_replaced: int, seen: int, config: TrainConfig, split: Split) -> None:
    if num_replaced > max(8, config.data.max_bad_share * seen):
        raise DataError(
            f"{num_replaced} of {seen} samples of split '{split.name}' did not decode and were replaced, more than "
            f"data.max_bad_share = {config.data.max_bad_share}. Run `focusvit verify --repair` on the data set."
        )
