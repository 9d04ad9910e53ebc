"""Which device, CPUs and loader processes each training worker gets, decided before anything starts. Pure functions.

Nothing falls back in silence: what was asked for and does not fit is refused with both numbers and the options that
fit; what is lowered is said in a line.
"""

import dataclasses
import sys
from dataclasses import dataclass
from typing import Any

from cluster.ray_session import cpus_each, node_cpus, node_gpus, num_that_fit
from focusvit.train.config import TrainConfig
from pipeline.errors import UsageError
from pipeline.io.machine import free_memory_bytes, usable_cpus

from .estimate import memory_of
from .launch import LaunchConfig, worker_range

BASE_BYTES = 600e6
"""a process that has loaded torch and the model's code"""
LOADER_BYTES = 350e6
"""a loader process: OpenCV, the augmentation, its own memory of the plan"""
_USED_SHARE = 0.9
"""of the free memory: the rest is for what an estimate forgets"""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What each of `low` to `high` workers gets."""

    low: int
    high: int
    device: str
    """gpu or cpu"""
    cpus: int
    loader_workers: int
    notes: tuple[str, ...] = ()
    """what was lowered, or is waited for"""

    def line(self) -> str:
        """What the plan says: device, workers, CPUs and GPUs of each."""
        workers = str(self.low) if self.low == self.high else f"{self.low} to {self.high}"
        each = f"{self.cpus} {'CPU' if self.cpus == 1 else 'CPUs'}{' and 1 GPU' if self.device == 'gpu' else ''}"
        ending = "" if workers == "1" else "s"
        return f"{workers} worker{ending} on {self.device}, {each} and {self.loader_workers} loader processes each"


def place(launch: LaunchConfig, loader_workers: int, nodes: list[dict[str, Any]]) -> Placement:
    """Place the workers of `launch` on `nodes` (as `ray.nodes()` lists them). Raises `UsageError` for what cannot fit.

    With --autoscaled, nodes come when they are asked for, and what is missing today is no mistake.
    """
    low, high = worker_range(launch.workers)
    nodes = sorted(nodes, key=lambda node: node["Resources"].get("CPU", 0))
    cpus, gpus = node_cpus(nodes), [int(count) for count in node_gpus(nodes)]
    use_gpu = _wants_gpu(launch, low, high, sum(gpus))
    notes = []
    if launch.autoscaled and launch.device == "auto" and not use_gpu:
        notes.append("the cluster has no GPU now, so the training runs on CPUs; --device gpu asks for GPUs")
    grows = launch.autoscaled and (sum(gpus) if use_gpu else sum(cpus)) < low
    if grows:
        kind = "GPUs" if use_gpu else "CPUs"
        notes.append(f"the cluster has {sum(gpus if use_gpu else cpus)} {kind} now; its autoscaler is asked for more")
    # A worker's GPU and CPUs lie on one node: the CPUs of a node without GPUs are of no use to it.
    most = gpus if use_gpu else None
    left = [*cpus[:-1], cpus[-1] - bool(launch.score_on)] if cpus else []
    at_once = min(high, sum(gpus)) if use_gpu and not grows else high
    each = launch.cpus_per_worker or (1 if grows else cpus_each(left, at_once, most))
    if not grows and num_that_fit(cpus, each, most) < low:  # Ray would wait for such nodes for ever
        beside = f" and {', '.join(map(str, gpus))} GPUs" if use_gpu else ""
        raise UsageError(
            f"{low} workers with {each} CPUs each do not fit: the nodes have {', '.join(map(str, cpus))} CPUs{beside}. "
            f"{_that_fits(low, each, cpus, most)}."
        )
    loaders = min(loader_workers, max(1, each - 1) if use_gpu else each)
    if loaders < loader_workers:
        notes.append(f"{loaders} loader processes a worker instead of {loader_workers}: it has {each} CPUs")
    device = "gpu" if use_gpu else "cpu"
    return Placement(low=low, high=high, device=device, cpus=each, loader_workers=loaders, notes=tuple(notes))


def _wants_gpu(launch: LaunchConfig, low: int, high: int, gpus: int) -> bool:
    """GPUs are used when the smallest wanted number fits. Raises `UsageError` with both numbers when it does not."""
    if launch.device == "cpu" or (launch.device == "auto" and gpus == 0):
        return False
    if gpus >= low or (launch.device == "gpu" and launch.autoscaled):
        return True
    if gpus == 0:
        raise UsageError(
            f"--device gpu with {low} workers needs {low} GPUs; Ray sees 0. Use --device cpu, or --autoscaled where an "
            "autoscaler adds nodes when they are asked for."
        )
    raise UsageError(
        f"{low} workers want {low} GPUs; Ray sees {gpus}. Use --workers {gpus}, --workers 1-{high} (as many as there "
        f"are, at most {high}), or --device cpu."
    )


def _that_fits(low: int, each: int, cpus: list[int], most: list[int] | None) -> str:
    """Options that fit, to type as they stand."""
    options = []
    smaller = next((c for c in range(each - 1, 0, -1) if num_that_fit(cpus, c, most) >= low), 0)
    if smaller:
        options.append(f"--workers {low} --cpus-per-worker {smaller}")
    fewer = num_that_fit(cpus, each, most)
    if fewer:
        options.append(f"--workers {fewer} --cpus-per-worker {each}" if each > 1 else f"--workers {fewer}")
    return f"What fits: {' or '.join(options)}" if options else "No worker fits: take a smaller --cpus-per-worker"


def within_memory(
    found: Placement, config: TrainConfig, free_bytes: float, state_bytes: float, image_bytes: float
) -> Placement:
    """The same workers in the memory of one machine: fewer loader processes where that is enough, which is noted.

    `state_bytes`: weights, gradients and optimizer of a worker; `image_bytes`: what one image keeps for backward; both
    0 on a GPU, which has memory of its own. Raises `UsageError` with the options that fit.
    """
    usable, workers = _USED_SHARE * free_bytes, found.high
    share = -(-config.global_batch // workers)
    at_once = min(config.micro_batch or share, share)
    held = config.data.prefetch * share * 4 * config.data.image_px**2  # batches that wait, images and maps

    def needed(loaders: int, images: int) -> float:
        return workers * (BASE_BYTES + state_bytes + images * image_bytes + loaders * (LOADER_BYTES + held))

    if needed(found.loader_workers, at_once) <= usable:
        return found
    loaders = next((n for n in range(found.loader_workers - 1, -1, -1) if needed(n, at_once) <= usable), None)
    if loaders is not None:
        wanted = needed(found.loader_workers, at_once) / 1e9
        note = (
            f"{loaders} loader processes a worker instead of {found.loader_workers}: the training would take "
            f"{wanted:.1f} GB, {free_bytes / 1e9:.1f} GB are free"
        )
        return dataclasses.replace(found, loader_workers=loaders, notes=(*found.notes, note))
    options = []
    images = next((n for n in range(at_once - 1, 0, -1) if needed(0, n) <= usable), 0)
    if images:
        options.append(f"--micro-batch {images} --data.loader-workers 0")
    per_worker = needed(0, at_once) / workers
    if workers > 1 and per_worker <= usable:
        options.append(f"--workers {max(1, int(usable / per_worker))} with a smaller --global-batch")
    raise UsageError(
        f"{workers} workers need about {needed(0, at_once) / 1e9:.1f} GB of memory with {at_once} images at a time, "
        f"and {free_bytes / 1e9:.1f} GB are free. "
        f"{'What fits: ' + ' or '.join(options) if options else 'Take a smaller model'}."
    )


def within_this_machine(found: Placement, config: TrainConfig) -> Placement:
    """`within_memory` of what is free here now."""
    state, image = (0.0, 0.0) if found.device == "gpu" else memory_of(config)
    return within_memory(found, config, free_memory_bytes(), state, image)


def placed_on_this_machine(config: TrainConfig, launch: LaunchConfig, num_gpus: int) -> Placement:
    """`place` on one node: this machine, as far as this process may use it."""
    node = {"Alive": True, "Resources": {"CPU": usable_cpus(), "GPU": num_gpus}}
    return within_this_machine(place(launch, config.data.loader_workers, [node]), config)


def say(found: Placement) -> None:
    """What was decided, on stderr, before the seconds of silence in which processes start."""
    sys.stderr.write("".join(f"note      {note}\n" for note in found.notes))
    sys.stderr.write(f"starting  {found.line()}\n")
    sys.stderr.flush()
