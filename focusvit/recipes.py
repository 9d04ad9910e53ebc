"""Recipes: functions that return a whole TrainConfig. Each says its command, its hardware and what to expect.

Any key can be changed on the command line: `focusvit pretrain demo --data DIR --run-dir DIR --optim.lr 2e-3`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from pipeline.errors import UsageError

from .checkpoint import Checkpoint
from .config_json import from_json
from .data_config import DataConfig
from .model_config import FocusViTConfig
from .optim import OptimConfig
from .train_config import TrainConfig


def debug() -> TrainConfig:
    """Two epochs of a very small model, to see that a data set and an installation work.

    focusvit pretrain debug --data DIR --run-dir DIR
    Hardware: any CPU. Seconds on a few hundred images. The score means nothing.
    """
    return TrainConfig(
        model=FocusViTConfig(
            image_px=32, patch_px=8, width=32, depth=3, heads=2, tokens=8, trunk="latent", num_latents=4, num_reads=1
        ),
        data=DataConfig(image_px=32),
        optim=OptimConfig(lr=1e-3, warmup_epochs=0.2),
        epochs=2,
        global_batch=32,
        log_every_steps=2,
    )


def demo() -> TrainConfig:
    """A small FocusViT on the embedded shapes data set (about 1,500 images of 96 px in 8 classes).

    focusvit pretrain demo --data DIR --run-dir DIR --workers 2
    Hardware: 2 CPU cores.
    """
    return TrainConfig(
        model=_small_cpu_model(image_px=64, width=128, depth=6, heads=4),
        data=DataConfig(image_px=64, map_px=32, crop_scale=(0.5, 1.0), eval_crop_fraction=1.0),
        optim=OptimConfig(lr=2e-3, warmup_epochs=2, weight_decay=0.05),
        epochs=16,
        global_batch=64,
        eval_every_epochs=4,
        checkpoint_every_epochs=4,
    )


def tiny_imagenet_cpu() -> TrainConfig:
    """A small FocusViT on 64 px images (the 40-class subset of Tiny ImageNet: 20,000 for training), on CPU.

    focusvit pretrain tiny_imagenet_cpu --data DIR --run-dir DIR --workers 2
    Hardware: 2 CPU cores, about 10 minutes.
    """
    return TrainConfig(
        model=_small_cpu_model(image_px=64, width=128, depth=6, heads=4),
        data=DataConfig(image_px=64, map_px=32, crop_scale=(0.35, 1.0), eval_crop_fraction=1.0),
        optim=OptimConfig(lr=2e-3, warmup_epochs=1, weight_decay=0.05),
        epochs=12,
        global_batch=128,
        eval_every_epochs=2,
        checkpoint_every_epochs=1,
    )


def finetune(record: Checkpoint) -> TrainConfig:
    """Go on from a checkpoint with a new head: the same model and image size, a low rate, layer-wise decay.

    focusvit finetune --checkpoint RUN --data DIR --run-dir DIR --workers 2
    Hardware: 2 CPU cores for a small model.
    """
    trained = from_json(TrainConfig, record.config, f"{record.uri}: config")
    return TrainConfig(
        model=from_json(FocusViTConfig, record.model, f"{record.uri}: model"),
        data=dataclasses.replace(trained.data, crop_scale=(0.5, 1.0), train_split="train", eval_split="val"),
        optim=OptimConfig(lr=5e-4, warmup_epochs=0.5, weight_decay=0.05, layer_decay=0.8),
        epochs=5,
        global_batch=64,
        eval_every_epochs=1,
        init_from=record.uri,
    )


def _small_cpu_model(**values: Any) -> FocusViTConfig:
    """Few tokens and a convolutional stem: the best use of a CPU minute at 64 px."""
    return FocusViTConfig(
        **{
            "patch_px": 8,
            "mlp_ratio": 3.0,
            "stem": "conv",
            "grid_depth": 1,
            "tokens": 32,
            "trunk": "full",
            "readout": "mean",
            **values,
        }
    )


RECIPES: dict[str, Callable[[], TrainConfig]] = {
    "debug": debug,
    "demo": demo,
    "tiny_imagenet_cpu": tiny_imagenet_cpu,
}


def recipe(name: str) -> TrainConfig:
    """The recipe called `name`. Raises `UsageError` that lists those there are."""
    if name not in RECIPES:
        raise UsageError(f"There is no recipe '{name}'. Recipes: {', '.join(RECIPES)}.")
    return RECIPES[name]()
