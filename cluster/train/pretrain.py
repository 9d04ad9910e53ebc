"""`focusvit pretrain` and `focusvit finetune`: Ray Train around the one training loop.

The driver resolves paths, checks everything that can be wrong, owns the MLflow run and shows the progress; workers
only train. They talk through the run directory, so a worker's death loses nothing but the steps since its checkpoint.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from focusvit.box.names import checkpoint_place
from focusvit.runs.checkpoint import load_checkpoint, newest_sound, starting_weights
from focusvit.runs.config_json import to_json
from focusvit.runs.run_dir import RunDir
from focusvit.runs.store import default_tracking_uri
from focusvit.train.config import DEFAULTS, TrainConfig
from focusvit.train.loop import facts_of, for_dataset
from pipeline.errors import UsageError
from pipeline.io import storage
from pipeline.io.json_text import json_text
from pipeline.shards.dataset import Dataset, open_dataset

from .checkpoint_scores import check_task
from .estimate import describe
from .holder import held
from .launch import LaunchConfig, finetune_options, pretrain_options, worker_range
from .on_ray import placed_on_ray
from .placement import placed_on_this_machine, say
from .reporting import reported_run
from .summary import summarise, summary_line
from .termination import asked_by
from .tracked_place import changes_nothing, tracked_place


def pretrain_main(argv: list[str]) -> int:
    launch = pretrain_options(argv)
    return _run(launch.training, launch)


def finetune_main(argv: list[str]) -> int:
    start = finetune_options(argv)
    record = load_checkpoint(checkpoint_place(start.checkpoint), start.patch)
    launch = finetune_options(argv, record)
    return _run(launch.training, launch)


def _here(config: TrainConfig, launch: LaunchConfig) -> str:
    """What the workers would get on this machine; a plan for another one may well not fit here."""
    import torch

    try:
        return placed_on_this_machine(config, launch, torch.cuda.device_count()).line()
    except UsageError as error:
        return f"not on this machine: {error}"


def _loader_s(config: TrainConfig, data: Dataset) -> float:
    from focusvit.data.loader_cost import loader_cpu_s

    tokens = config.model.tokens if config.model.needs_maps else None
    return loader_cpu_s(data.split(config.data.train_split), config.data, tokens, config.token_budgets)


def _run(config: TrainConfig, launch: LaunchConfig) -> int:
    launch = resolved(launch)
    data = open_dataset(launch.data)
    resolved_config = for_dataset(config, data)
    loader_s = _loader_s(resolved_config, data) if launch.dry_run else None
    plan = describe(resolved_config, data, launch, loader_s)
    if launch.dry_run:
        sys.stdout.write(f"{plan}here      {_here(config, launch)}\n")
        return 0
    sys.stderr.write(plan)
    summary = launch_training(config, launch)
    text = json_text(summary) if launch.json else summary_line(summary)
    sys.stdout.write(text + "\n")
    return 0


def resolved(launch: LaunchConfig) -> LaunchConfig:
    """All places absolute: workers have other current folders."""
    return dataclasses.replace(
        launch,
        data=storage.resolve(launch.data),
        run_dir=storage.resolve(launch.run_dir),
        tracking_uri=default_tracking_uri(launch.tracking_uri) if launch.tracking_uri else None,
    )


def with_absolute_places(config: TrainConfig) -> TrainConfig:
    """The places that a config names, as those of the launch: a worker would look below its own folder for a teacher,
    and would begin a new cache at every start."""
    data, distill = config.data, config.distill
    if data.cache_dir:
        data = dataclasses.replace(data, cache_dir=storage.resolve(data.cache_dir))
    if distill.teacher:
        distill = dataclasses.replace(distill, teacher=checkpoint_place(distill.teacher))
    if distill.cache_dir:
        distill = dataclasses.replace(distill, cache_dir=storage.resolve(distill.cache_dir))
    start = starting_weights(checkpoint_place(config.init_from)) if config.init_from else None
    return dataclasses.replace(config, data=data, distill=distill, init_from=start)


def launch_training(config: TrainConfig, launch: LaunchConfig) -> dict[str, Any]:
    """Train to the end and return the summary: run_dir, checkpoint, scores, MLflow run. `launch` is `resolved`.

    Everything that can be refused is checked first: a refused start leaves no run directory. Raises `UsageError` when
    the directory holds another run or another process trains in it, when a split is missing, when the tracking server
    does not answer, when workers or memory do not fit; `DataError` when too much of the data does not decode.
    """
    data = open_dataset(launch.data)
    config = with_absolute_places(for_dataset(config, data))
    data.split(config.data.eval_split)
    if launch.score_on:
        check_task(launch.score_on)
    high = worker_range(launch.workers)[1]
    if config.global_batch < high:
        raise UsageError(f"global_batch {config.global_batch} is smaller than --workers {high}. Use fewer workers.")
    run, asked = RunDir(launch.run_dir), (to_json(config), facts_of(config, data))
    run.prepare(*asked, defaults=to_json(DEFAULTS), write=False)
    total = config.num_steps(data.split(config.data.train_split).num_samples) * config.global_batch
    with ExitStack() as stack:
        is_new = not storage.exists(run.path("config.json"))
        if not is_new:
            stack.enter_context(held(run))
        done = newest_sound(run) or 0
        known = run.info()
        if done >= total and known.get("finished") and changes_nothing(known, launch):
            sys.stderr.write(f"finished  {run.uri} has seen all of its {total} samples; nothing is left to do\n")
            return summarise(run, 0.0, 0)
        place = tracked_place(known, launch)
        if done >= total:  # to score and to send: nothing that needs Ray or a GPU
            launch = dataclasses.replace(launch.here(), device="cpu")
        start = stack.enter_context((_placed_here if launch.local else placed_on_ray)(config, launch))
        if is_new:
            stack.enter_context(held(run))
            stack.enter_context(_forgotten_when_refused(run))
        run.prepare(*asked, defaults=to_json(DEFAULTS))
        storage.remove(run.path("error.json"))
        run.forget_to_stop()
        if done:
            sys.stderr.write(f"resuming  at {done} of {total} samples\n")
        sys.stderr.write(f"{place.said}\n" if place.said else "")
        finish = stack.enter_context(reported_run(config, data, launch, place))
        start()
        latest = run.latest() or 0
        if run.asked_to_stop() and latest < total:
            sys.stderr.write(f"stopped at {latest} of {total} samples; the same command goes on from there\n")
            raise SystemExit(128 + asked_by())  # as a shell says it of a process that a signal ended
        return finish()


@contextmanager
def _forgotten_when_refused(run: RunDir) -> Iterator[None]:
    """A worker may refuse what the driver could not see. A run that has nothing yet goes with its directory then."""
    try:
        yield
    except UsageError:
        if run.latest() is None and not storage.exists(run.path("metrics.jsonl")):
            run.forget()
        raise


@contextmanager
def _placed_here(config: TrainConfig, launch: LaunchConfig) -> Iterator[Callable[[], object]]:
    """The one worker of --local. Raises `UsageError` for a GPU that is not there, and when memory does not suffice."""
    import torch

    from focusvit.train.loop import train

    num_gpus = torch.cuda.device_count()
    if launch.device == "gpu" and not num_gpus:
        raise UsageError("--device gpu: torch sees no GPU here. Use --device cpu or auto.")
    found = placed_on_this_machine(config, launch, num_gpus)
    say(found)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, loader_workers=found.loader_workers))
    device = "cuda" if found.device == "gpu" else "cpu"
    if launch.cpus_per_worker:
        torch.set_num_threads(found.cpus)
    yield partial(train, config, data_uri=launch.data, run_dir=launch.run_dir, device=device)
