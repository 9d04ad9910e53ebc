"""What each Ray Train worker runs: the one training loop, with Ray's rank, world size and device."""

import logging
from typing import Any

from focusvit.runs.config_json import from_json
from focusvit.runs.run_dir import RunDir
from focusvit.runs.sealed_json import put_sealed
from focusvit.train.config import TrainConfig
from pipeline.errors import DataError, UsageError
from pipeline.io import storage

log = logging.getLogger(__name__)
STARTED = "started.json"
"""written by rank 0 when all workers are there, for the driver"""


def work(settings: dict[str, Any]) -> None:
    """Train, or go on. An error of the user or of the data is written down for the driver, in its own words."""
    import ray.train
    import ray.train.torch
    import torch

    from focusvit.train.loop import train

    device = ray.train.torch.get_device()
    torch.set_num_threads(settings["threads"])
    place = RunDir(settings["run_dir"]).path("error.json")
    if storage.exists(place):
        return  # the last start ended with an error that a new start would only repeat; the driver raises it
    context = ray.train.get_context()
    who = {"run": RunDir(settings["run_dir"]).info().get("run_id"), "rank": context.get_world_rank()}
    log.info("worker started", extra={"facts": {**who, "world_size": context.get_world_size()}})

    def on_checkpoint(samples_seen: int, metrics: dict[str, float]) -> None:
        log.info("checkpoint", extra={"facts": {**who, "samples": samples_seen}})
        ray.train.report({"samples_seen": samples_seen, **metrics})

    if context.get_world_rank() == 0:
        told = {"world_size": context.get_world_size(), "device": device.type}
        storage.put_json(RunDir(settings["run_dir"]).path(STARTED), told)

    try:
        if settings["use_gpu"] and device.type == "cpu":
            raise UsageError(
                "Ray gave each worker a GPU and torch sees none there: install a torch with CUDA on the nodes, start "
                "Ray with the GPUs that are there, or use --device cpu."
            )
        train(
            from_json(TrainConfig, settings["config"]),
            data_uri=settings["data"],
            run_dir=settings["run_dir"],
            device=device,
            rank=context.get_world_rank(),
            world_size=context.get_world_size(),
            on_checkpoint=on_checkpoint,
            poll_preemption=lambda: ray.train.get_preemption_info() is not None,
        )
    except (UsageError, DataError) as error:
        put_sealed(place, {"kind": type(error).__name__, "text": str(error)})
        raise
