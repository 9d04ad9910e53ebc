"""`focusvit pretrain` and `focusvit finetune`: Ray Train around the one training loop.

The driver resolves paths, checks everything that can be wrong, owns the MLflow run and shows the progress; workers
only train. They talk through the run directory, so a worker's death loses nothing but the steps since its checkpoint.
"""

import dataclasses
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.ray_session import cpus_each, node_cpus, node_gpus, num_that_fit, ray_session
from focusvit.recipes.small import finetune, recipe
from focusvit.runs.checkpoint import load_checkpoint, starting_weights
from focusvit.runs.config_json import flatten, to_json
from focusvit.runs.run_dir import RunDir
from focusvit.runs.store import default_tracking_uri
from focusvit.train.config import TrainConfig
from focusvit.train.loop import facts_of, for_dataset
from focusvit.train.watch import DivergedError
from pipeline.commandline import Positional, parse, parse_known
from pipeline.errors import DataError, UsageError, did_you_mean, last_line
from pipeline.io import storage
from pipeline.io.json_text import json_text
from pipeline.shards.dataset import open_dataset

from .checkpoint_scores import check_task, scored_checkpoints
from .estimate import describe
from .launch import LaunchConfig, worker_range
from .reporting import reported_run
from .summary import summary_line
from .termination import ended_gently
from .worker import work


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(LaunchConfig):
    """Train a recipe on shards. Any key of the recipe can follow, such as --epochs 3 or --optim.lr 1e-3."""

    recipe: Positional[str]
    """name of a recipe (focusvit/recipes/small.py)"""


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(LaunchConfig):
    """Go on from a checkpoint with a new head on another data set. Any key of the training config can follow."""

    checkpoint: str
    """checkpoint folder or run directory to start from"""


def pretrain_main(argv: list[str]) -> int:
    launch, rest = parse_known(PretrainConfig, argv, prog="focusvit pretrain")
    return _run(_overridden(recipe(launch.recipe), rest, f"focusvit pretrain {launch.recipe}"), launch, launch.recipe)


def finetune_main(argv: list[str]) -> int:
    launch, rest = parse_known(FinetuneConfig, argv, prog="focusvit finetune")
    start = finetune(load_checkpoint(storage.resolve(launch.checkpoint)))
    return _run(_overridden(start, rest, "focusvit finetune"), launch, "finetune")


def _overridden(config: TrainConfig, argv: list[str], prog: str) -> TrainConfig:
    """`config` with the options of `argv`. `UsageError` for a key that it does not have, naming those it has."""
    known = set(flatten(to_json(config)))
    for option in argv:
        key = option.removeprefix("--").partition("=")[0].replace("-", "_")
        group, _, last = key.rpartition(".")
        plain = f"{group}.{last.removeprefix('no_')}".lstrip(".")
        if option.startswith("--") and key != "help" and plain not in known and key not in known:
            beside = sorted(name for name in known if name.rpartition(".")[0] == group) or sorted(known)
            near = did_you_mean(key, [*known, *(field.name for field in dataclasses.fields(LaunchConfig))])
            raise UsageError(f"there is no key '{key}'.{near} Keys there: {', '.join(beside)}.")
    return parse(TrainConfig, argv, prog=prog, default=config)


def _run(config: TrainConfig, launch: LaunchConfig, name: str) -> int:
    launch = resolved(launch, name)
    data = open_dataset(launch.data)
    resolved_config = for_dataset(config, data)
    plan = describe(resolved_config, data, launch.run_dir, launch.workers, launch.dry_run, launch.images_per_s)
    (sys.stdout if launch.dry_run else sys.stderr).write(plan)
    if launch.dry_run:
        return 0
    summary = launch_training(config, launch)
    text = json_text(summary) if launch.json else summary_line(summary)
    sys.stdout.write(text + "\n")
    return 0


def resolved(launch: LaunchConfig, name: str) -> LaunchConfig:
    """All places absolute: workers have other current folders."""
    run_dir = storage.resolve(launch.run_dir)
    return dataclasses.replace(
        launch,
        data=storage.resolve(launch.data),
        run_dir=run_dir,
        tracking_uri=default_tracking_uri(launch.tracking_uri),
        run_name=launch.run_name or f"{name} {run_dir.rstrip('/').rsplit('/', 1)[-1]}",
    )


def with_absolute_places(config: TrainConfig) -> TrainConfig:
    """The places that a config names, as those of the launch: a worker would look below its own folder for a teacher,
    and would begin a new cache at every start."""
    data, distill = config.data, config.distill
    if data.cache_dir:
        data = dataclasses.replace(data, cache_dir=storage.resolve(data.cache_dir))
    if distill.teacher:
        distill = dataclasses.replace(distill, teacher=storage.resolve(distill.teacher))
    start = starting_weights(storage.resolve(config.init_from)) if config.init_from else None
    return dataclasses.replace(config, data=data, distill=distill, init_from=start)


def launch_training(config: TrainConfig, launch: LaunchConfig) -> dict[str, Any]:
    """Train to the end and return the summary: run_dir, checkpoint, metrics, MLflow run. `launch` is `resolved`.

    Raises `UsageError` before anything starts when the run directory holds another run, when a split is missing, when
    the tracking server does not answer; `DataError` when too much of the data does not decode.
    """
    data = open_dataset(launch.data)
    config = for_dataset(config, data)
    config = with_absolute_places(config)
    data.split(config.data.eval_split)
    if launch.score_on:
        check_task(launch.score_on)
    low, high = worker_range(launch.workers)
    if config.global_batch < high:
        raise UsageError(f"global_batch {config.global_batch} is smaller than --workers {high}. Use fewer workers.")
    run = RunDir(launch.run_dir)
    run.prepare(to_json(config), facts_of(config, data))
    storage.remove(run.path("error.json"))
    run.forget_to_stop()
    total = config.num_steps(data.split(config.data.train_split).num_samples) * config.global_batch
    with reported_run(config, data, launch) as finish:
        if launch.local:
            _train_here(config, launch)
        else:
            train_on_ray(config, launch, low, high)
        if run.asked_to_stop() and (run.latest() or 0) < total:
            sys.stderr.write(f"stopped at {run.latest() or 0} samples; the same command goes on from there\n")
            raise SystemExit(143)  # as a shell says it of a process that SIGTERM ended
        return finish()


def _train_here(config: TrainConfig, launch: LaunchConfig) -> None:
    import torch

    from focusvit.train.loop import train

    found = torch.cuda.is_available()
    if launch.device == "gpu" and not found:
        raise UsageError("--device gpu: torch sees no GPU here. Use --device cpu or auto.")
    device = "cuda" if launch.device != "cpu" and found else "cpu"
    train(config, data_uri=launch.data, run_dir=launch.run_dir, device=device)


def train_on_ray(config: TrainConfig, launch: LaunchConfig, low: int, high: int) -> None:
    with ray_session(launch.ray_address, quiet=not launch.verbose):
        import ray
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        from .restarts import NoteFailures, told_failures

        nodes = sorted(ray.nodes(), key=lambda node: node["Resources"].get("CPU", 0))
        gpus, cpus = int(ray.cluster_resources().get("GPU", 0)), node_cpus(nodes)
        if launch.device == "gpu" and gpus < low:
            raise UsageError(f"--device gpu with {low} workers needs {low} GPUs; Ray sees {gpus}. Use --device cpu.")
        use_gpu = launch.device == "gpu" or (launch.device == "auto" and gpus >= high)
        # A worker's GPU and CPUs lie on one node: the CPUs of a node without GPUs are of no use to it.
        most = [int(count) for count in node_gpus(nodes)] if use_gpu else None
        left = [*cpus[:-1], cpus[-1] - bool(launch.score_on)]
        threads = launch.cpus_per_worker or cpus_each(left, min(high, gpus) if use_gpu else high, most)
        if num_that_fit(cpus, threads, most) < low:  # Ray would wait for such nodes for ever
            beside = f" and {', '.join(map(str, most))} GPUs" if most else ""
            raise UsageError(
                f"{low} workers with {threads} CPUs each do not fit: the nodes have {', '.join(map(str, cpus))} CPUs"
                f"{beside}. Use fewer --workers or a smaller --cpus-per-worker."
            )
        settings = {
            "config": to_json(config),
            "data": launch.data,
            "run_dir": launch.run_dir,
            "threads": max(1, threads - config.data.loader_workers) if use_gpu else threads,
        }
        trainer = TorchTrainer(
            work,
            train_loop_config=settings,
            scaling_config=ScalingConfig(
                num_workers=low if low == high else (low, high),  # type: ignore[arg-type]
                use_gpu=use_gpu,
                resources_per_worker={"CPU": threads, **({"GPU": 1} if use_gpu else {})},
            ),
            run_config=RunConfig(
                # Ray's own bookkeeping; a new name for each start, since resuming is ours and not Ray's.
                name=f"start-{os.getpid()}-{int.from_bytes(os.urandom(4))}",
                storage_path=str(Path(launch.run_dir, "ray")) if storage.is_local(launch.run_dir) else None,
                failure_config=FailureConfig(max_failures=launch.max_failures),
                callbacks=[NoteFailures(launch.run_dir)],  # type: ignore[list-item] # Ray's hints are of its former Train
            ),
        )
        # Ray took SIGTERM for itself when it started: it would end everything at once.
        with (
            ended_gently(RunDir(launch.run_dir)),
            scored_checkpoints(launch.run_dir, launch.score_on),
            told_failures(launch.run_dir, launch.max_failures),
        ):
            try:
                trainer.fit()
            except Exception as error:  # Ray's own kinds, and whatever its controller met
                _raise_reported(launch.run_dir, error)
                raise _stopped(launch, error) from None
        _raise_reported(launch.run_dir, None)


def _stopped(launch: LaunchConfig, error: Exception) -> DataError:
    """The error of a training that Ray gave up; the whole text of the failure goes to a file."""
    from ray.train import WorkerGroupError

    place = RunDir(launch.run_dir).path("failure.txt")
    storage.put(place, str(error).encode())
    done = RunDir(launch.run_dir).latest() or 0
    # Other kinds are no deaths of workers: no place for them in the cluster, a controller that was lost.
    failed = f"the training workers failed more than {launch.max_failures} times"
    what = failed if isinstance(error, WorkerGroupError) else "Ray Train could not go on"
    return DataError(
        f"{what}; the last words were '{last_line(error)}' (all of them: {place}). {done} samples are done; the same "
        "command goes on from there once the cause is gone."
    )


def _raise_reported(run_dir: str, cause: Exception | None) -> None:
    """Raise the error that a worker wrote down as the user's or the data's, in its own words."""
    place = RunDir(run_dir).path("error.json")
    if storage.exists(place):
        values = storage.read_json(place)
        kinds = {kind.__name__: kind for kind in (UsageError, DivergedError)}
        raise kinds.get(values["kind"], DataError)(values["text"]) from cause
