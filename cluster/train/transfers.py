"""`focusvit transfer`: the suite with Ray around it: tasks side by side, and fine-tuning on any number of workers.

Without either it runs in this process and Ray is never started. The work of a task is a pure function of its spec
(`transfer.work.run_task`); this only places it.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from cluster.ray_session import cpus_each, node_cpus, node_gpus, ray_session
from focusvit.train.config import TrainConfig
from pipeline.commandline import parse
from pipeline.errors import UsageError, first_line, last_line
from pipeline.io import storage
from transfer.finetune import Train, train_here
from transfer.suite import run, with_out
from transfer.tasks.spec import MapTasks, Outcome, WorkSpec, in_turn

from .launch import LaunchConfig, TransferLaunch, worker_range
from .on_ray import train_on_ray


def main(argv: list[str]) -> int:
    config = with_out(parse(TransferLaunch, argv, prog="focusvit transfer"))
    here = config.ray_address is None
    map_tasks: MapTasks = in_turn if here and config.tasks_at_once == 1 else _side_by_side(config)
    train: Train = train_here if here and config.workers == "1" else _on_workers(config)
    return run(config, map_tasks, train)


def _side_by_side(config: TransferLaunch) -> MapTasks:
    """`map_tasks` on Ray. A task whose worker dies becomes a failure of that task; the others go on."""

    def map_tasks(work: Callable[[WorkSpec], Outcome], specs: Sequence[WorkSpec]) -> Iterator[Outcome]:
        with ray_session(config.ray_address):
            import ray

            _check_places(config, ray.nodes())
            most = min(config.tasks_at_once, len(specs))
            device, needs = task_needs(ray.nodes(), most, config.device)
            # A retry would not help: what the task did wrong is in its outcome, what killed its worker may come again.
            remote = ray.remote(max_retries=0, **needs)(work)
            waiting = [dataclasses.replace(spec, device=device) for spec in specs]
            running: dict[Any, WorkSpec] = {}
            while waiting or running:
                while waiting and len(running) < most:
                    spec = waiting.pop(0)
                    running[remote.remote(spec)] = spec
                (ready,), _ = ray.wait(list(running), num_returns=1)
                spec = running.pop(ready)
                try:
                    yield ray.get(ready)
                except ray.exceptions.RayError as error:
                    said = isinstance(error, ray.exceptions.RayTaskError)  # an error of the work, its text comes last
                    reason = (
                        f"failed on Ray: {last_line(error)}" if said else f"its Ray worker died ({first_line(error)})"
                    )
                    yield Outcome(task=spec.task, failures=[f"{spec.task.name}: {reason}"])

    return map_tasks


def task_needs(nodes: list[dict[str, Any]], num: int, device: str) -> tuple[str, dict[str, Any]]:
    """Where each of `num` tasks side by side computes, cpu or cuda, and what it asks Ray for: CPUs, and GPUs or a share
    of one, all on one node. auto is settled by what the nodes have, whatever the machine has that asks. UsageError for
    GPUs that no node has.
    """
    cpus, gpus = node_cpus(nodes), node_gpus(nodes)
    if device == "cuda" and not any(gpus):
        raise UsageError("--device cuda: no node of the Ray cluster has a GPU. Use --device cpu or auto.")
    if device == "cpu" or not any(gpus):
        return "cpu", {"num_cpus": cpus_each(cpus, num)}
    share = min(1.0, sum(gpus) / num)
    most = [int(count / share + 1e-6) for count in gpus]
    return "cuda", {"num_cpus": cpus_each(cpus, min(num, sum(most)), most), "num_gpus": share}


def _check_places(config: TransferLaunch, nodes: list[dict[str, Any]]) -> None:
    """Several nodes need a place for results that all of them see; what a node caches for itself may be its own."""
    num_nodes = sum(node["Alive"] for node in nodes)  # Ray lists the dead ones too
    if num_nodes > 1 and storage.is_local(storage.resolve(config.out)) and not config.features_folder:
        raise UsageError(
            f"the cluster has {num_nodes} nodes, and features would be cached below --out {config.out}. Name a local "
            "folder that every node has: --features-folder /tmp/focusvit-features (and an --out that all nodes see)."
        )


def _on_workers(config: TransferLaunch) -> Train:
    """`train` on Ray Train workers, as `focusvit finetune` does it; the tracked run is the suite's child, not this."""

    def train(training: TrainConfig, data_uri: str, run_dir: str, device: str) -> None:
        launch = LaunchConfig(
            data=data_uri,
            run_dir=run_dir,
            workers=config.workers,
            device={"cuda": "gpu"}.get(config.device, config.device),
            ray_address=config.ray_address,
        )
        high = worker_range(config.workers)[1]
        batch = training.global_batch
        if batch < high:
            raise UsageError(f"fine-tuning uses {batch} images a step, fewer than --workers {high}. Use fewer workers.")
        train_on_ray(training, launch)

    return train
