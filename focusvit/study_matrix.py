"""What the accuracy study compares: one geometry of 8 x 8 patches, the same recipe and budget for every row."""

from dataclasses import dataclass, replace
from typing import Any

from .model_config import FocusViTConfig
from .presets import control, focusvit_64px

PLAIN, DEFAULT = "ViT", "FocusViT"


@dataclass(frozen=True, kw_only=True)
class StudySet:
    """How images of one data set enter: its test split, side of image and map, patch; the grid is 8 x 8 in each."""

    test_split: str
    image_px: int
    patch_px: int
    map_px: int


SETS: dict[str, StudySet] = {
    "tiny-imagenet-40": StudySet(test_split="val", image_px=64, patch_px=8, map_px=32),
    "cifar10": StudySet(test_split="test", image_px=32, patch_px=4, map_px=32),
}


def default_model(of: StudySet, **overrides: Any) -> FocusViTConfig:
    """The row that carries the claim: conv stem, 1 grid block of 6, 16 superpixels for 64 patches."""
    values = {"image_px": of.image_px, "patch_px": of.patch_px, "width": 96, "heads": 3, "tokens": 16}
    return focusvit_64px(**{**values, **overrides})


def core_rows(of: StudySet) -> dict[str, FocusViTConfig]:
    """The core matrix. Every control has FocusViT's stem, so that a difference is one of tokens, not of the stem."""
    model = default_model(of)
    plain = replace(control("full_grid", model), stem="linear", grid_depth=0)
    rows = {PLAIN: plain, "ViT, conv stem": control("full_grid", model), DEFAULT: model}
    for title, name in (
        ("uniform grid", "uniform_grid"),
        ("random regions", "random_regions"),
        ("patch twice as large", "large_patch"),
        ("half resolution", "lower_resolution"),
        ("token merging", "token_merging"),
    ):
        rows[f"control: {title}"] = replace(control(name, model), stem=model.stem)
    rows["FocusViT, LLA (24 tokens, 8 latents)"] = replace(model, tokens=24, trunk="hybrid", num_latents=8)
    return rows


def selection_rows(of: StudySet) -> dict[str, FocusViTConfig]:
    """Superpixel configurations that are compared on the held-out tenth of train, never on the test split."""
    model = default_model(of)
    return {
        DEFAULT: model,
        "K 8": replace(model, tokens=8),
        "K 24": replace(model, tokens=24),
        "d0 0": replace(model, grid_depth=0),
        "d0 2": replace(model, grid_depth=2),
        "mean pooling": replace(model, pooling="mean"),
        "attention pooling": replace(model, pooling="attention"),
        "hard overlap": replace(model, overlap="hard"),
        "descriptor position": replace(model, position="descriptor"),
        "linear stem": replace(model, stem="linear"),
    }
