"""What the accuracy study compares: a few data sets, the same recipe and budget for every row of one."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from focusvit.model.config import FocusViTConfig
from focusvit.model.presets import focusvit_64px
from pipeline.superpixels.segment import LIGHT, SuperpixelConfig
from tests.benchmarks.model.controls import control

PLAIN, DEFAULT = "ViT", "FocusViT"
LIGHTER = {
    "light": LIGHT,
    "lightest": SuperpixelConfig(fine_regions=64, seed_regions=64, pixels_per_region=16, iterations=5),
}
"""Superpixels of small images that take less time: a model trained with those of the shards is asked with them too."""


def lighter_settings() -> dict[str, dict[str, Any]]:
    """As a record keeps them."""
    return {name: asdict(settings) for name, settings in LIGHTER.items()}


def lighter_in(record: dict[str, Any]) -> list[str]:
    """The names of `LIGHTER` that meant in a record what they mean today."""
    today, then = lighter_settings(), record.get("settings", {})
    return [name for name in LIGHTER if then.get(name) == today[name]]


def with_lighter(row: str, name: str) -> str:
    return f"{row}, {name} superpixels"


@dataclass(frozen=True, kw_only=True)
class StudySet:
    """How the images of one data set enter, how large the models on it are, and how long they learn."""

    folder: str
    """of the shards, below --data"""
    test_split: str
    image_px: int
    patch_px: int
    map_px: int
    width: int
    heads: int
    tokens: int
    """superpixels, a quarter of the patches"""
    lla: tuple[int, int]
    """tokens and latents of the row with latents"""
    epochs: float


SETS: dict[str, StudySet] = {
    "cifar10": StudySet(
        folder="cifar10", test_split="test", image_px=32, patch_px=4, map_px=32, width=128, heads=4, tokens=16,
        lla=(24, 8), epochs=50,
    ),
    "tiny-imagenet-40": StudySet(
        folder="tiny-imagenet-40", test_split="val", image_px=64, patch_px=8, map_px=32, width=128, heads=4, tokens=16,
        lla=(24, 8), epochs=60,
    ),
    "imagenette": StudySet(
        folder="imagenette", test_split="val", image_px=128, patch_px=8, map_px=64, width=192, heads=3, tokens=64,
        lla=(100, 32), epochs=100,
    ),
}  # fmt: skip


def default_model(of: StudySet, **overrides: Any) -> FocusViTConfig:
    """The row that carries the claim: conv stem, 1 grid block of 6, one superpixel for four patches."""
    values = {
        "image_px": of.image_px, "patch_px": of.patch_px, "width": of.width, "heads": of.heads, "tokens": of.tokens
    }  # fmt: skip
    return focusvit_64px(**{**values, **overrides})


def core_rows(of: StudySet) -> dict[str, FocusViTConfig]:
    """The matrix, in order of worth. Every control has FocusViT's stem, so that a difference is one of tokens. Two
    take one idea each of the paper and its repository (arXiv 2506.18791), all else as in FocusViT: linear patch
    embeddings pooled at once, the fastest FocusViT; attention in a window of 7 in raster order with an extra map on
    keys and values. The last two leave the grid block out but keep the stem: what each of the two gives, and the least
    time and memory; over superpixels, and over a grid.
    """
    model = default_model(of)
    tokens, latents = of.lla
    return {
        PLAIN: replace(control("full_grid", model), stem="linear", grid_depth=0),
        DEFAULT: model,
        f"FocusViT, LLA ({tokens} tokens, {latents} latents)": replace(
            model, tokens=tokens, trunk="hybrid", num_latents=latents
        ),
        "control: uniform grid": _with_stem("uniform_grid", model),
        "control: half resolution": _with_stem("lower_resolution", model),
        "ViT, conv stem": control("full_grid", model),
        "control: patch twice as large": _with_stem("large_patch", model),
        "control: token merging": _with_stem("token_merging", model),
        "FocusViT, pooled at once": replace(model, stem="linear", grid_depth=0),
        "FocusViT, window over raster order": replace(
            model, trunk="window", window=7, window_over="raster", window_projection=True
        ),
        "FocusViT, no grid block": replace(model, grid_depth=0),
        "control: uniform grid, no grid block": replace(_with_stem("uniform_grid", model), grid_depth=0),
    }


def _with_stem(name: str, model: FocusViTConfig) -> FocusViTConfig:
    return replace(control(name, model), stem=model.stem)
