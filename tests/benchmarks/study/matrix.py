"""What the accuracy study compares: a few geometries, the same recipe and budget for every row of one."""

from dataclasses import dataclass, replace
from typing import Any

from focusvit.model.config import FocusViTConfig
from focusvit.model.presets import focusvit_64px
from tests.benchmarks.model.controls import control

PLAIN, DEFAULT = "ViT", "FocusViT"
LIGHT = ", light superpixels"
"""ends the names of rows that read `StudySet.light_folder`"""


@dataclass(frozen=True, kw_only=True)
class StudySet:
    """How the images of one data set enter, and how large the models on it are."""

    folder: str
    """of the shards, below --data"""
    test_split: str
    image_px: int
    patch_px: int
    map_px: int
    width: int = 96
    heads: int = 3
    tokens: int = 16
    """superpixels, a quarter of the patches"""
    lla: tuple[int, int] = (24, 8)
    """tokens and latents of the row with latents"""
    light_folder: str = ""
    """of the same images with superpixels that cost less to make; "" where there are none"""

    def folder_of(self, row: str) -> str:
        """The shards that a row of the matrix is trained on, timed with, and tested on."""
        return self.light_folder if row.endswith(LIGHT) else self.folder


SETS: dict[str, StudySet] = {
    "tiny-imagenet-40": StudySet(folder="tiny-imagenet-40", test_split="val", image_px=64, patch_px=8, map_px=32),
    "cifar10": StudySet(folder="cifar10", test_split="test", image_px=32, patch_px=4, map_px=32),
    # As many patches as 256 px images have at patch 16: here superpixels are not the larger part of the cost.
    "tiny-imagenet-40-256-patches": StudySet(
        folder="tiny-imagenet-40", test_split="val", image_px=64, patch_px=4, map_px=64, width=128, heads=4, tokens=64,
        lla=(100, 32), light_folder="tiny-imagenet-40-light",
    ),
}  # fmt: skip


def default_model(of: StudySet, **overrides: Any) -> FocusViTConfig:
    """The row that carries the claim: conv stem, 1 grid block of 6, one superpixel for four patches."""
    values = {
        "image_px": of.image_px, "patch_px": of.patch_px, "width": of.width, "heads": of.heads, "tokens": of.tokens
    }  # fmt: skip
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
    tokens, latents = of.lla
    title = f"FocusViT, LLA ({tokens} tokens, {latents} latents)"
    rows[title] = replace(model, tokens=tokens, trunk="hybrid", num_latents=latents)
    if of.light_folder:
        rows |= {f"{row}{LIGHT}": rows[row] for row in (DEFAULT, title)}
    return rows


def selection_rows(of: StudySet) -> dict[str, FocusViTConfig]:
    """Superpixel configurations that are compared on the held-out tenth of train, never on the test split."""
    model = default_model(of)
    return {
        DEFAULT: model,
        f"K {of.tokens // 2}": replace(model, tokens=of.tokens // 2),
        f"K {of.tokens * 3 // 2}": replace(model, tokens=of.tokens * 3 // 2),
        "d0 0": replace(model, grid_depth=0),
        "d0 2": replace(model, grid_depth=2),
        "mean pooling": replace(model, pooling="mean"),
        "attention pooling": replace(model, pooling="attention"),
        "hard overlap": replace(model, overlap="hard"),
        "descriptor position": replace(model, position="descriptor"),
        "linear stem": replace(model, stem="linear"),
    }
