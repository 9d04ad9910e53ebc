"""Ray Train around the one training loop: workers are placed, started, watched and stopped; nothing else is here."""

import dataclasses
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from cluster.ray_session import ray_session
from focusvit.runs.config_json import to_json
from focusvit.runs.run_dir import RunDir
from focusvit.runs.sealed_json import read_sealed
from focusvit.train.config import TrainConfig
from focusvit.train.watch import DivergedError
from pipeline.errors import DataError, UsageError, last_line
from pipeline.io import storage

from .checkpoint_scores import scored_checkpoints
from .launch import LaunchConfig
from .placement import Placement, place, say, within_this_machine
from .termination import ended_gently
from .worker import STARTED, work


@contextmanager
def placed_on_ray(config: TrainConfig, launch: LaunchConfig) -> Iterator[Callable[[], object]]:
    """Ray is up, the workers fit; yields what starts them and waits for their end. Nothing is written before that.

    Raises `UsageError` when no Ray answers or the workers do not fit.
    """
    with ray_session(launch.ray_address, quiet=not launch.verbose):
        import ray

        found = place(launch, config.data.loader_workers, ray.nodes())
        if not (launch.ray_address or os.environ.get("RAY_ADDRESS")):
            found = within_this_machine(found, config)
        say(found)
        data = dataclasses.replace(config.data, loader_workers=found.loader_workers)
        yield partial(_train, dataclasses.replace(config, data=data), launch, found)


def train_on_ray(config: TrainConfig, launch: LaunchConfig) -> None:
    """Place, start, wait."""
    with placed_on_ray(config, launch) as start:
        start()


def _train(config: TrainConfig, launch: LaunchConfig, found: Placement) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from .watching import NoteFailures, told_failures, told_waiting

    use_gpu, run = found.device == "gpu", RunDir(launch.run_dir)
    storage.remove(run.path(STARTED))
    trainer = TorchTrainer(
        work,
        train_loop_config={
            "config": to_json(config),
            "data": launch.data,
            "run_dir": launch.run_dir,
            "threads": max(1, found.cpus - found.loader_workers) if use_gpu else found.cpus,
            "use_gpu": use_gpu,
        },
        scaling_config=ScalingConfig(
            num_workers=found.low if found.low == found.high else (found.low, found.high),  # type: ignore[arg-type]
            use_gpu=use_gpu,
            resources_per_worker={"CPU": found.cpus, **({"GPU": 1} if use_gpu else {})},
        ),
        run_config=RunConfig(
            # Ray's own bookkeeping; a new name for each start, since resuming is ours and not Ray's.
            name=f"start-{os.getpid()}-{int.from_bytes(os.urandom(4))}",
            storage_path=str(Path(launch.run_dir, "ray")) if storage.is_local(launch.run_dir) else None,
            failure_config=FailureConfig(max_failures=launch.restarts),
            callbacks=[NoteFailures(launch.run_dir)],  # type: ignore[list-item] # Ray's hints are of its former Train
        ),
    )
    # Ray took SIGTERM for itself when it started: it would end everything at once.
    with (
        ended_gently(run),
        scored_checkpoints(launch.run_dir, launch.score_on),
        told_failures(launch.run_dir, launch.restarts),
        told_waiting(run, found),
    ):
        try:
            _in_a_thread(trainer.fit)
        except Exception as error:  # Ray's own kinds, and whatever its controller met
            _raise_reported(launch.run_dir, error)
            raise _stopped(launch, error) from None
    _raise_reported(launch.run_dir, None)


def _in_a_thread(work: Callable[[], Any]) -> None:
    """Ray Train takes Ctrl-C for itself in the main thread, and exits with 1 and no word. In another it leaves it."""
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=guarded, name="ray train", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.5)
    if errors:
        raise errors[0]


def _stopped(launch: LaunchConfig, error: Exception) -> DataError:
    """The error of a training that Ray gave up; the whole text of the failure goes to a file."""
    from ray.train import WorkerGroupError

    place = RunDir(launch.run_dir).path("failure.txt")
    storage.put(place, str(error).encode())
    done = RunDir(launch.run_dir).latest() or 0
    # Other kinds are no deaths of workers: no place for them in the cluster, a controller that was lost.
    failed = f"the training workers failed more than {launch.restarts} times"
    what = failed if isinstance(error, WorkerGroupError) else "Ray Train could not go on"
    return DataError(
        f"{what}; the last words were '{last_line(error)}' (all of them: {place}). {done} samples are done; the same "
        "command goes on from there once the cause is gone."
    )


def _raise_reported(run_dir: str, cause: Exception | None) -> None:
    """Raise the error that a worker wrote down as the user's or the data's, in its own words."""
    place = RunDir(run_dir).path("error.json")
    if storage.exists(place):
        values = read_sealed(place)
        kinds = {kind.__name__: kind for kind in (UsageError, DivergedError)}
        raise kinds.get(values["kind"], DataError)(values["text"]) from cause
