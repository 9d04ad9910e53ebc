"""Recipes for images of 112 px and less, and the list of all of them.

Any key can be changed on the command line: `focusvit pretrain demo --data DIR --run-dir DIR --optim.lr 2e-3`.
Recipes for ImageNet-1k are in `imagenet.py`, the rows of the original repository in `original.py`.
"""

import sys
from dataclasses import dataclass, replace

from focusvit.box.names import checkpoint_place
from focusvit.data.config import DataConfig
from focusvit.distill.config import DistillConfig
from focusvit.model.config import FocusViTConfig
from focusvit.model.presets import focusvit_64px, plain_vit_of
from focusvit.options import CostConfig
from focusvit.runs.checkpoint_record import Checkpoint
from focusvit.runs.config_json import from_json
from focusvit.runs.model_record import model_config
from focusvit.train.config import OptimConfig, TrainConfig
from pipeline.commandline import parse
from pipeline.errors import UsageError, did_you_mean
from pipeline.io import storage
from pipeline.io.json_text import json_text

from . import imagenet, original
from .table import Recipe, text_of

_CPU, _GPU = "2 CPU cores", "one GPU"
_DEMO_MODEL = focusvit_64px(image_px=96, width=96, depth=4, heads=3, tokens=24)
_DEMO = Recipe(
    about="A small FocusViT on generated shapes (1,200 images of 96 px in 4 classes): part of `focusvit demo`",
    hardware=_CPU,
    time="half a minute",
    score="not measured in a table; `focusvit demo` prints it",
    config=TrainConfig(
        model=_DEMO_MODEL,
        data=DataConfig(image_px=96, map_px=48, crop_scale=(0.8, 1.0), eval_crop_fraction=1.0),
        optim=OptimConfig(lr=2e-3, warmup_epochs=2, weight_decay=0.05),
        epochs=8,
        global_batch=32,
        eval_every_epochs=2,
        checkpoint_every_epochs=2,
        compile=False,
    ),
)
_ON_GPU = DataConfig(
    image_px=64, crop_scale=(0.2, 1.0), colour="3-augment", colour_jitter=0.3, eval_crop_fraction=1.0,
    mix=imagenet.DEIT_MIX, loader_workers=8,
)  # fmt: skip

RECIPES: dict[str, Recipe] = {
    "debug": Recipe(
        about="Two epochs of a very small model, to see that a data set and an installation work",
        hardware="any CPU",
        time="seconds on a few hundred images",
        score="not measured; it would mean nothing",
        config=TrainConfig(
            model=FocusViTConfig(
                image_px=32,
                patch_px=8,
                width=32,
                depth=3,
                heads=2,
                tokens=8,
                trunk="latent",
                num_latents=4,
                num_reads=1,
            ),
            data=DataConfig(image_px=32),
            optim=OptimConfig(lr=1e-3, warmup_epochs=0.2),
            epochs=2,
            global_batch=32,
            log_every_steps=2,
            compile=False,  # it takes longer than the run
        ),
    ),
    "demo": _DEMO,
    "demo_vit": _DEMO.but(
        "The plain ViT of the same size, images and steps, which `focusvit demo` puts next to it",
        "two minutes",
        _DEMO.score,
        model=plain_vit_of(_DEMO_MODEL),
    ),
    "tiny_imagenet_cpu": Recipe(
        about="A small FocusViT on 64 px images (40 classes of Tiny ImageNet: 20,000 images for training), on CPU",
        hardware=_CPU,
        time="15 min at 230 images a second, which one core gave",
        score="measured 37.95 % top-1 (chance 2.5 %): focusvit/TRAINING.md",
        config=TrainConfig(
            model=focusvit_64px(width=128, depth=6, heads=4),
            data=DataConfig(image_px=64, map_px=32, crop_scale=(0.35, 1.0), eval_crop_fraction=1.0),
            optim=OptimConfig(lr=2e-3, warmup_epochs=1, weight_decay=0.05),
            epochs=10,
            global_batch=128,
            eval_every_epochs=2,
            checkpoint_every_epochs=1,
        ),
    ),
    "tiny_imagenet": Recipe(
        about="FocusViT from scratch on Tiny ImageNet at 64 px, with the augmentation that 100 epochs need",
        hardware=_GPU,
        time="1.4 h at 2000 images a second",
        score="not measured",
        config=TrainConfig(
            model=focusvit_64px(width=192, depth=9, heads=6, drop_path=0.1),
            data=_ON_GPU,
            optim=OptimConfig(lr=1e-3, warmup_epochs=5),
            epochs=100,
            global_batch=512,
            ema_decay=0.999,
            eval_every_epochs=5,
        ),
    ),
    "cifar10": Recipe(
        about="FocusViT from scratch on CIFAR-10 at 32 px, with the augmentation that 200 epochs need",
        hardware=_GPU,
        time="0.7 h at 4000 images a second",
        score="not measured",
        config=TrainConfig(
            model=focusvit_64px(image_px=32, patch_px=4, width=192, depth=9, heads=6, drop_path=0.1),
            data=replace(_ON_GPU, image_px=32, crop_scale=(0.4, 1.0)),
            optim=OptimConfig(lr=1e-3, warmup_epochs=10),
            epochs=200,
            global_batch=512,
            ema_decay=0.999,
            eval_every_epochs=10,
        ),
    ),
    "cifar10_cpu": Recipe(
        about="A small FocusViT on CIFAR-10 at 32 px from scratch, on CPU",
        hardware=_CPU,
        time="0.5 h at 300 images a second",
        score="not measured; the study trains half of the superpixels for 50 epochs by another recipe: `make study`",
        config=TrainConfig(
            model=focusvit_64px(image_px=32, patch_px=4, width=128, depth=6, heads=4),
            data=DataConfig(image_px=32, crop_scale=(0.4, 1.0), eval_crop_fraction=1.0),
            optim=OptimConfig(lr=2e-3, warmup_epochs=1, weight_decay=0.05),
            epochs=10,
            global_batch=128,
            eval_every_epochs=2,
        ),
    ),
    "distill_features": Recipe(
        about="A small FocusViT learns a pretrained transformer's features from images without labels, on a CPU",
        hardware=_CPU,
        time="0.9 h at 70 images a second for the 23,591 photos of focusvit-tiny, with --precision bf16 on a CPU that "
        "has it",
        score="not measured in classes; focusvit-tiny was made with it (`focusvit models`). Any ViT folder of Hugging "
        "Face or timm can teach",
        config=TrainConfig(
            model=focusvit_64px(image_px=112, width=192, depth=9, heads=3, tokens=36),
            data=DataConfig(image_px=112, map_px=56, crop_scale=(0.4, 1.0), eval_crop_fraction=1.0, views=2),
            optim=OptimConfig(lr=1e-3, warmup_epochs=1, weight_decay=0.05),
            distill=DistillConfig(target="features"),
            token_budgets=(25, 36, 64),
            epochs=10,
            global_batch=64,
            eval_every_epochs=2,
        ),
    ),
    **imagenet.RECIPES,
    **original.RECIPES,
}


def recipe(name: str) -> TrainConfig:
    """The config of the recipe called `name`. Raises `UsageError` that lists those there are."""
    if name not in RECIPES:
        raise UsageError(f"There is no recipe '{name}'.{did_you_mean(name, RECIPES)}\n\n{text_of(RECIPES, short=True)}")
    return RECIPES[name].config


def debug() -> TrainConfig:
    """The recipe `debug`: what stands in a help text before a recipe is named."""
    return recipe("debug")


def finetune(record: Checkpoint, num_samples: int | None = None) -> TrainConfig:
    """Go on from a checkpoint (or a host of Hugging Face or timm) with a new head: the same model and image size, a low
    rate, layer-wise decay: `focusvit finetune`; tests/benchmarks/results/starts.md has five small sets.

    `num_samples` to learn from: few take smaller batches and more epochs, so that an epoch has 20 steps and the whole
    has 200.
    """
    seen = from_json(DataConfig, record.config.get("data", {}), f"{record.uri}: data")
    batch = 64 if num_samples is None else max(8, min(64, num_samples // 20))
    epochs = 5 if num_samples is None else max(5, min(20, round(200 * batch / max(1, num_samples))))
    return TrainConfig(
        model=model_config(record),
        data=replace(seen, crop_scale=(0.5, 1.0), views=0, train_split="train", eval_split="val"),
        optim=OptimConfig(lr=5e-4, warmup_epochs=epochs / 10, weight_decay=0.05, layer_decay=0.8),
        epochs=epochs,
        global_batch=batch,
        eval_every_epochs=1,
        init_from=record.uri,
        head_start="probe",
    )


def cost_options(argv: list[str]) -> CostConfig:
    """The options of `focusvit cost`. Raises `UsageError` for a model that is neither a recipe nor a place."""
    config = parse(CostConfig, argv, prog="focusvit cost")
    if config.model not in RECIPES and not storage.exists(checkpoint_place(config.model)):
        raise UsageError(
            f"'{config.model}' is neither a recipe, nor a model that `focusvit models` lists, nor the folder of "
            f"a run or checkpoint.{did_you_mean(config.model, RECIPES)}\n\n{text_of(RECIPES, short=True)}"
        )
    return config


@dataclass(frozen=True, kw_only=True)
class RecipesConfig:
    """The recipes that `focusvit pretrain` takes: what for, on what, how long, how well."""

    json: bool = False
    """print one JSON list"""


def main(argv: list[str]) -> int:
    config = parse(RecipesConfig, argv, prog="focusvit recipes")
    words = ("about", "hardware", "time", "score")
    rows = [{"name": name, **{word: getattr(one, word) for word in words}} for name, one in RECIPES.items()]
    sys.stdout.write((json_text(rows) if config.json else text_of(RECIPES)) + "\n")
    return 0
