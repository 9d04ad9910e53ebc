"""Recipes for ImageNet-1k at 224 px. None of them has been run here: the scores are those of the papers they follow.

With fewer GPUs than a recipe names the global batch stays and `--micro-batch` bounds the memory; the result is the
same. Times are samples over a throughput, as `--dry-run --images-per-s` prints them; `python -m tests.benchmarks train
--device cuda --sections step` measures the throughput of a GPU.
"""

from dataclasses import replace

from focusvit.data.config import DataConfig, MixConfig
from focusvit.model.presets import LEAN, focusvit, vit
from focusvit.train.config import OptimConfig, TrainConfig

from .table import Recipe

DEIT_MIX = MixConfig(mixup=0.8, cutmix=1.0)
_GPUS = "8 GPUs"

# Beyer et al. 2022, "Better plain ViT baselines", but with learned positions.
_VIT_90 = Recipe(
    about='Plain ViT-S/16, 90 epochs: the short honest baseline (Beyer et al. 2022, "Better plain ViT baselines")',
    hardware=_GPUS,
    time="4.0 h at 8000 images a second",
    score="not measured; published 76.5 %",
    config=TrainConfig(
        model=vit("small", readout="mean"),
        data=DataConfig(
            crop_scale=(0.05, 1.0), colour="randaugment", mix=MixConfig(mixup=0.2), loader_workers=12, prefetch=4
        ),
        # AdamW's decay is multiplied by the rate; 0.1 at 1e-3 is the 1e-4 of the source.
        optim=OptimConfig(lr=1e-3, weight_decay=0.1, warmup_epochs=8, final_lr_share=0.0, clip_norm=1.0),
        epochs=90,
        global_batch=1024,
        label_smoothing=0.0,
        eval_every_epochs=5,
    ),
)
_FOCUSVIT_SMALL = Recipe(
    about="FocusViT-S, as focusvit_tiny_in1k",
    hardware=_GPUS,
    time="13.3 h at 8000 images a second",
    score="not measured; DeiT-S, to compare, has 79.8 % at 4.6 GMAC",
    config=TrainConfig(
        model=focusvit("small", drop_path=0.1),
        data=DataConfig(
            map_px=112, colour="3-augment", colour_jitter=0.3, mix=MixConfig(cutmix=1.0, cutmix_shape="superpixels"),
            loader_workers=12, eval_crop_fraction=0.9,
        ),
        optim=OptimConfig(lr=1e-3, weight_decay=0.05, warmup_epochs=5, clip_norm=1.0, spike_factor=20.0),
        epochs=300,
        global_batch=1024,
        label_smoothing=0.1,
        ema_decay=0.9999,
        token_budgets=(49, 64, 100, 144),
        eval_every_epochs=5,
    ),
)  # fmt: skip

RECIPES: dict[str, Recipe] = {
    "vit_s16_in1k_90": _VIT_90,
    "vit_s16_in1k_150": _VIT_90.but(
        "As vit_s16_in1k_90, 150 epochs", "6.7 h at 8000 images a second", "not measured; published 78.5 %", epochs=150
    ),
    "vit_s16_in1k_300": _VIT_90.but(
        "As vit_s16_in1k_90, 300 epochs", "13.3 h at 8000 images a second", "not measured; published 80.0 %", epochs=300
    ),
    "deit_s16_in1k": Recipe(
        about="DeiT-S, 300 epochs (Touvron et al. 2021); no repeated augmentation",
        hardware=_GPUS,
        time="13.3 h at 8000 images a second",
        score="not measured; published 79.8 %",
        config=TrainConfig(
            model=vit("small", drop_path=0.1),
            data=DataConfig(colour="randaugment", colour_jitter=0.3, erase=0.25, mix=DEIT_MIX, loader_workers=12),
            optim=OptimConfig(lr=1e-3, weight_decay=0.05, warmup_epochs=5, final_lr_share=0.01, clip_norm=0.0),
            epochs=300,
            global_batch=1024,
            label_smoothing=0.1,
            ema_decay=0.99996,
            eval_every_epochs=5,
        ),
    ),
    "deit3_s16_in1k": Recipe(
        about="DeiT III small, 800 epochs (Touvron et al. 2022), with AdamW instead of LAMB",
        hardware=_GPUS,
        time="35.6 h at 8000 images a second",
        score="not measured; published 81.4 %",
        config=TrainConfig(
            model=vit("small", drop_path=0.05),
            data=DataConfig(
                colour="3-augment", colour_jitter=0.3, mix=DEIT_MIX, loader_workers=12, eval_crop_fraction=1.0
            ),
            optim=OptimConfig(lr=2e-3, weight_decay=0.05, warmup_epochs=5, clip_norm=1.0),
            epochs=800,
            global_batch=2048,
            loss="bce",
            label_smoothing=0.0,
            eval_every_epochs=10,
        ),
    ),
    "focusvit_tiny_in1k": _FOCUSVIT_SMALL.but(
        "FocusViT-T, 300 epochs, random token budgets, CutMix by superpixels", "13.3 h at 8000 images a second",
        "not measured; DeiT-Ti, to compare, has 72.2 %",
        model=focusvit("tiny"), optim=replace(_FOCUSVIT_SMALL.config.optim, weight_decay=0.02),
    ),
    "focusvit_small_in1k": _FOCUSVIT_SMALL,
    "focusvit_lean_in1k": _FOCUSVIT_SMALL.but(
        "FocusViT-S that pools right behind its stem: a fifth faster, half of a plain ViT's memory in training",
        "13.3 h at 8000 images a second",
        "not measured; as focusvit_small_in1k", model=focusvit("small", drop_path=0.1, **LEAN),
    ),
    "focusvit_base_in1k": _FOCUSVIT_SMALL.but(
        "FocusViT-B, as focusvit_tiny_in1k", "26.7 h at 4000 images a second",
        "not measured; DeiT-B, to compare, has 81.8 % at 17.6 GMAC", model=focusvit("base", drop_path=0.2),
    ),
}  # fmt: skip
