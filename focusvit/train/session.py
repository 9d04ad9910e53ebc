"""Everything that a training sets up before its first step: data, weights, loaders, schedule, meters."""

import dataclasses
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from focusvit.data.batch import Batch
from focusvit.data.draws import draws_facts
from focusvit.distill.features import FeatureTargets, Student
from focusvit.distill.logits import Teacher
from focusvit.distill.teacher import teacher_width
from focusvit.precision import settled
from focusvit.runs.checkpoint import newest_sound
from focusvit.runs.config_json import to_json
from focusvit.runs.metrics_log import MetricsLog
from focusvit.runs.run_dir import RunDir
from focusvit.runs.writer import CheckpointWriter
from pipeline.errors import DataError, UsageError
from pipeline.io import storage

from . import ranks
from .compiling import compiled, compiles
from .config import DEFAULTS, TrainConfig
from .learner import Learner
from .loaders import Loaders, of_shards, scored_batches
from .meters import Meters
from .optim import lr_share
from .step import StepOptions
from .teachers import feature_targets
from .watch import Watch

if TYPE_CHECKING:
    from pipeline.shards.dataset import Dataset, Split


def for_dataset(config: TrainConfig, data: "Dataset") -> TrainConfig:
    """The config with the number of outputs that the data set, or the teacher's features, ask for.

    Raises UsageError when samples of the splits that are trained on or scored have no class and labels are learned, and
    for a label-free training without a teacher.
    """
    if config.label_free:
        if config.distill.teacher is None:
            raise UsageError("this recipe learns a teacher's features. Name one: --teacher DIR (Hugging Face or timm).")
        num_outputs = 2 * teacher_width(config.distill.teacher)
    else:
        for name in dict.fromkeys((config.data.train_split, config.data.eval_split)):
            _check_classes(data.split(name))
        num_outputs = len(data.classes)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, num_classes=num_outputs))


def facts_of(config: TrainConfig, data: "Dataset") -> dict[str, Any]:
    """What else must stay the same for a run to go on: the identity of its data, and how its pixels are drawn."""
    train_split = data.split(config.data.train_split)
    return {"data_identity": train_split.identity, "num_classes": config.model.num_classes, **draws_facts(config.data)}


class Session:
    """The parts of one training on one rank. See `train` for what opening one raises."""

    def __init__(
        self,
        config: TrainConfig,
        data_uri: str,
        run_dir: str,
        device: torch.device,
        rank: int,
        world_size: int,
        loaders: Loaders | None = None,
    ) -> None:
        """Open data and run directory, build or resume the learner, make the loaders."""
        if device.index is not None and device.type == "cuda":
            torch.cuda.set_device(device)  # collectives over nccl and barriers use the current one
        data = loaders.data if loaders else _shards_at(data_uri, check=rank == 0, config=config)
        self.config = config = for_dataset(config, data)
        self.data, self.train_split = data, data.split(config.data.train_split)
        self.run, self.device, self.rank = RunDir(run_dir), device, rank
        if rank == 0:
            self.run.prepare(to_json(config), facts_of(config, data), defaults=to_json(DEFAULTS))
        # One rank looks, all go on from what it found: each by itself might see another folder of a store.
        start = ranks.gather(newest_sound(self.run) if rank == 0 else None)[0]

        self.learner = learner = Learner(config, device)
        learner.start(self.run, start)
        self.starts_from_probe = start is None and config.head_start == "probe"
        """the head was fitted just now: what follows is measured against this start"""
        if self.starts_from_probe:
            learner.probe_head(scored_batches(data, config, config.data.train_split, device, rank, world_size))
        model: Any = learner.model
        if config.label_free:
            model = Student(model, config.distill.regions > 0)
        if compiles(config, device):
            model = compiled(model, config)
        self.model: nn.Module = distributed(model, device) if world_size > 1 else model
        """the learner's model, compiled and wrapped as this run needs it"""

        loaders = loaders or of_shards(data, config, device, rank, world_size)
        self.loader, self.eval_batches = loaders.train, loaders.eval
        self.loader.samples_seen = learner.samples_seen
        self.loader.total_samples = self.num_steps * config.global_batch
        self.meters = Meters(config, learner.model, device, learner.counters.get("replaced_samples", 0))
        facts = {"config": to_json(config), "world_size": world_size}
        self.watch = Watch(self.run, rank, facts, learner.model.state_dict)
        self.points = MetricsLog(self.run) if rank == 0 else None
        """the writer of metrics.jsonl"""
        self.writer, self._look_at = CheckpointWriter(), 0.0

        teacher, features = None, None
        if config.label_free:
            features = feature_targets(config, self.train_split, self.run, device)
            features.standardise((batch.to(device) for batch in loaders.eval), ranks.sum_array)
        elif config.distill.teacher:
            teacher = Teacher(config.distill, data.classes, config.data.image_px, device)
        options = step_options(config, device, world_size, teacher, features)
        self.step = dataclasses.replace(options, guard=learner.guard, before_update=self.watch.check)

    @property
    def num_steps(self) -> int:
        return self.config.num_steps(self.train_split.num_samples)

    def lr(self, seen: int) -> float:
        """The learning rate of the step that ends at `seen` samples."""
        optim, num_samples = self.config.optim, self.train_split.num_samples
        total = self.num_steps * self.config.global_batch
        return optim.lr * lr_share(seen, optim.warmup_epochs * num_samples, total, optim.final_lr_share)

    def agree_to_stop(self) -> bool:
        """Rank 0 looks (into a store now and then) whether someone wants the run to end; all ranks get its answer. A
        collective: every rank calls it at the same step.
        """
        looks = self.rank == 0 and time.monotonic() >= self._look_at
        if looks and not storage.is_local(self.run.uri):
            self._look_at = time.monotonic() + 5.0
        return ranks.gather(looks and self.run.asked_to_stop())[0]

    def check_damage(self) -> None:
        """Raise `DataError` when too many samples had to be replaced."""
        replaced, seen = self.meters.num_replaced, self.learner.samples_seen
        if replaced > max(8, self.config.data.max_bad_share * seen):
            raise DataError(
                f"{replaced} of {seen} samples of split '{self.train_split.name}' did not decode and were replaced, "
                f"more than data.max_bad_share = {self.config.data.max_bad_share}. Run `focusvit verify --repair`."
            )


def step_options(
    config: TrainConfig,
    device: torch.device,
    world_size: int,
    teacher: Callable[[Batch], Tensor] | None,
    features: FeatureTargets | None = None,
) -> StepOptions:
    """What the config says of every step; the guard and the watch are the training's own."""
    return StepOptions(
        global_batch=config.global_batch,
        world_size=world_size,
        micro_batch=config.micro_batch,
        label_smoothing=config.label_smoothing,
        loss=config.loss,
        clip_norm=config.optim.clip_norm,
        bf16=settled(config.precision, device) == "bf16",
        teacher=teacher,
        features=features,
        distill=config.distill,
    )


def distributed(model: nn.Module, device: torch.device) -> nn.Module:
    """DDP with gradient buckets that never change.

    DDP usually rebuilds its buckets after the first step of a process, and three or more ranks sum a moved gradient in
    another order: a resumed run would differ in the last bits. It never rebuilds while it looks for unused parameters
    (and warns once that it found none). Buffers are not broadcast: all of them follow from the config and never change.
    """
    device_ids = [device] if device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=device_ids, find_unused_parameters=True, broadcast_buffers=False)


def _shards_at(uri: str, *, check: bool, config: TrainConfig) -> "Dataset":
    """The data set, its shards as long as their indexes say. Imports late: batches of a caller need none of it."""
    from focusvit.data.shard_cache import check_whole
    from pipeline.shards.dataset import open_dataset

    data = open_dataset(uri)
    if check:
        for split in (config.data.train_split, config.data.eval_split):
            check_whole(data.split(split))
    return data


def _check_classes(split: "Split") -> None:
    missing = int((split.class_ids < 0).sum())
    if missing:
        raise UsageError(
            f"{missing} of {split.num_samples} samples of split '{split.name}' at {split.uri} have no class, and this "
            f"training is supervised. Preprocess class folders (<class>/<image>) or a labels.csv, or learn from a "
            f"teacher without labels (`focusvit pretrain distill_features`); label maps are for the dense tasks of "
            f"`focusvit transfer`."
        )
