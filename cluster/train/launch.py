"""The options of a training: where it runs and reports, which never changes its result, and the keys of its recipe.

Light on purpose: `--help` and a mistake are answered from here alone.
"""

import re
import sys
from dataclasses import dataclass, replace
from typing import Annotated, Any

from focusvit.box.names import checkpoint_place
from focusvit.recipes.small import RECIPES, debug, finetune, recipe
from focusvit.recipes.table import text_of
from focusvit.runs.checkpoint_record import Checkpoint
from focusvit.runs.config_json import to_json
from focusvit.runs.model_record import quick_record
from focusvit.train.config import TrainConfig
from pipeline.commandline import REQUIRED, Flat, Positional, parse, parse_known, shown_as
from pipeline.io import storage
from pipeline.io.dataset_folder import samples_to_learn
from transfer.options import TransferConfig

_WITHOUT_RAY: dict[str, Any] = {
    "workers": "1", "ray_address": None, "max_failures": None, "autoscaled": False, "score_on": None
}  # fmt: skip
"""options that mean nothing there, with what they are then"""


@dataclass(frozen=True, kw_only=True)
class LaunchConfig:
    """Where a training runs and reports. None of this changes its result."""

    data: str
    """data set folder or URI (written by `focusvit preprocess`)"""
    run_dir: str
    """run directory or URI; the same command on the same directory goes on with the run"""
    workers: str = "1"
    """training processes: a number, or MIN-MAX for an elastic group"""
    device: str = "auto"
    """cpu, gpu, or auto: GPUs when there is one for each of the (fewest) workers, CPUs when there is none at all"""
    cpus_per_worker: int = 0
    """CPU threads of each worker; 0 = as many as all workers can have at once on the nodes that are there"""
    max_failures: int | None = None
    """how often the workers are started again after one died; default: 3"""
    local: bool = False
    """one worker in this process, without Ray (for a debugger)"""
    ray_address: str | None = None
    """a running Ray cluster; without it Ray starts inside this process"""
    autoscaled: bool = False
    """the cluster adds nodes when they are asked for: wait for the CPUs and GPUs that are missing now"""
    tracking_uri: str | None = None
    """MLflow store; default: MLFLOW_TRACKING_URI, else ./mlflow.db. A run that goes on follows a moved server"""
    experiment: str | None = None
    """MLflow experiment; default: focusvit"""
    run_name: str | None = None
    """MLflow run name; default: the recipe and the name of the run directory. A run that goes on is renamed"""
    score_on: str | None = None
    """NAME=DIR: score each checkpoint there by kNN and few-shot meanwhile, on one CPU that the training leaves free"""
    dry_run: bool = False
    """print the resolved config, steps, memory, tokens, FLOPs and time, then stop"""
    images_per_s: float | None = None
    """with --dry-run: the throughput of all workers together, for the time; default: at 100, 1000 and 10000"""
    json: bool = False
    """print the summary as one JSON object on stdout"""
    verbose: bool = False
    """show what Ray and the workers print"""

    def __post_init__(self) -> None:
        worker_range(self.workers)
        if self.device not in ("auto", "cpu", "gpu"):
            raise ValueError(f"--device must be auto, cpu or gpu, not '{self.device}'")
        if self.local and self.for_ray:
            raise ValueError(f"{', '.join(self.for_ray)}: of Ray, and --local is one worker without it; leave one out")
        if self.images_per_s is not None and (self.images_per_s <= 0 or not self.dry_run):
            raise ValueError("--images-per-s must be positive and belongs to --dry-run")
        if self.restarts < 0 or self.cpus_per_worker < 0:
            raise ValueError("--max-failures and --cpus-per-worker must not be negative")

    @property
    def restarts(self) -> int:
        return 3 if self.max_failures is None else self.max_failures

    @property
    def for_ray(self) -> list[str]:
        """The options of this launch that mean nothing without Ray."""
        given = [name for name, default in _WITHOUT_RAY.items() if getattr(self, name) != default]
        return [f"--{name.replace('_', '-')}" for name in given]

    def here(self) -> "LaunchConfig":
        """The same training in this process, without Ray."""
        return replace(self, local=True, **_WITHOUT_RAY)


def worker_range(text: str) -> tuple[int, int]:
    """'3' -> (3, 3); '1-4' -> (1, 4). ValueError for anything else."""
    low, _, high = text.partition("-")
    if not low.isdigit() or (high and not high.isdigit()) or text.endswith("-"):
        raise ValueError(f"--workers must be a number or MIN-MAX, not '{text}'")
    first, last = int(low), int(high or low)
    if not 1 <= first <= last:
        raise ValueError(f"--workers must satisfy 1 <= MIN <= MAX, not '{text}'")
    return first, last


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(LaunchConfig):
    """A recipe, where it runs, and what differs from it."""

    recipe: Annotated[Positional[str], shown_as(metavar="RECIPE")]
    """name of a recipe; `focusvit recipes` lists them"""
    training: Flat[TrainConfig]


@dataclass(frozen=True, kw_only=True)
class StartConfig(LaunchConfig):
    """Where a fine-tuning starts and runs."""

    checkpoint: str
    """checkpoint folder, run directory or model of `focusvit models` to start from, or a vision transformer as Hugging
    Face and timm save it"""
    patch: tuple[str, ...] = ()
    """superpixels inside a vision transformer of another library, such as --patch tokens=0.5 merge=colour
    (`focusvit transfer --help` says all of it)"""


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(StartConfig):
    """The same, and what differs from the settings of `recipes.small.finetune`."""

    training: Flat[TrainConfig]


def pretrain_options(argv: list[str]) -> PretrainConfig:
    """The options of `focusvit pretrain`: those of the launch, and every key of the recipe that `argv` names.

    Raises:
        UsageError: no such recipe; shows those there are.
        SystemExit: 2 for another mistake, 0 after --help.
    """
    argv = [re.sub("^--teacher(?==|$)", "--distill.teacher", word) for word in argv]  # the short name
    name = next((word for word in argv if word in RECIPES), None)
    try:
        found = _with_recipe(argv, name)
    except SystemExit as left:
        if left.code and name is None:
            sys.stderr.write(f"\n{text_of(RECIPES, short=True)}\n")
        raise
    if found.recipe != name:  # that word was the value of an option, or there is no such recipe
        recipe(found.recipe)
        found = _with_recipe(argv, found.recipe)
    return found


def _with_recipe(argv: list[str], name: str | None) -> PretrainConfig:
    default = PretrainConfig(
        recipe=REQUIRED, data=REQUIRED, run_dir=REQUIRED, training=recipe(name) if name else debug()
    )
    about = (
        "Train a recipe on shards. `focusvit recipes` lists the recipes. The options from --epochs on are the keys of "
        f"the recipe, with the values of '{name or 'debug'}'; what you give here takes their place."
    )
    return parse(PretrainConfig, argv, prog="focusvit pretrain", default=default, description=about)


def finetune_options(argv: list[str], record: Checkpoint | None = None) -> FinetuneConfig:
    """The options of `focusvit finetune`, where `record` is that of the checkpoint; without it, as its JSON has it.

    Raises:
        UsageError, DataError: there is no such checkpoint, or it is damaged.
        SystemExit: 2 for another mistake, 0 after --help.
    """
    example = Checkpoint(uri="CHECKPOINT", config=to_json(debug()), model=to_json(debug().model))
    num_samples = None
    if not {"-h", "--help"} & set(argv):
        start, _ = parse_known(StartConfig, argv, prog="focusvit finetune")
        record = record or quick_record(checkpoint_place(start.checkpoint), start.patch)
        num_samples = samples_to_learn(storage.resolve(start.data))
    training = finetune(record or example, num_samples)
    default = FinetuneConfig(checkpoint=REQUIRED, data=REQUIRED, run_dir=REQUIRED, training=training)
    about = (
        "Go on from a checkpoint with a new head on another data set. The options from --epochs on are the keys of the "
        "training; the checkpoint's own values for --model and --data stand in the place of those shown here, and few "
        "images to learn from take a smaller --global-batch and more --epochs."
    )
    return parse(FinetuneConfig, argv, prog="focusvit finetune", default=default, description=about)


@dataclass(frozen=True, kw_only=True)
class TransferLaunch(TransferConfig):
    """Measure the features of a checkpoint on labelled data sets that it was not trained for."""

    tasks_at_once: int = 1
    """Tasks that run side by side, each as a Ray task; 1 = one after another in this process, without Ray."""
    workers: str = "1"
    """Ray Train workers of each fine-tuning, a number or MIN-MAX; 1 = in this process, without Ray."""
    ray_address: str | None = None
    """A running Ray cluster; without it Ray starts inside this process when it is needed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        worker_range(self.workers)
        if self.tasks_at_once < 1:
            raise ValueError(f"--tasks-at-once is {self.tasks_at_once}: use 1 or more.")
        if self.workers != "1" and not self.finetune:
            raise ValueError(f"--workers {self.workers} is for fine-tuning: add --finetune, or use --tasks-at-once.")
        if self.on_ray and ":" in self.device:
            raise ValueError(f"--device {self.device}: Ray chooses the GPU of each task. Use --device cuda.")

    @property
    def on_ray(self) -> bool:
        return self.ray_address is not None or self.tasks_at_once > 1 or self.workers != "1"
