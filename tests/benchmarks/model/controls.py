"""Controls beside a FocusViT, at its size and token budget: what else could explain a difference to the plain ViT?"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from focusvit.model.config import FocusViTConfig
from focusvit.model.presets import PLAIN


def control(name: str, model: FocusViTConfig) -> FocusViTConfig:
    """A control beside `model`, at its size and token budget (docstrings of `CONTROLS` entries say what differs)."""
    if name not in CONTROLS:
        raise ValueError(f"unknown control '{name}'; there are {', '.join(CONTROLS)}")
    return replace(model, **CONTROLS[name](model))


def _lower_resolution(model: FocusViTConfig) -> dict[str, Any]:
    """The image shrunk until its patches are about as many as the tokens."""
    height, width = model.image_size
    share = ((model.tokens or model.num_patches) / model.num_patches) ** 0.5
    rows, columns = (max(1, round(side / model.patch_px * share)) for side in (height, width))
    return {**PLAIN, "image_px": (rows * model.patch_px, columns * model.patch_px)}


CONTROLS: dict[str, Callable[[FocusViTConfig], dict[str, Any]]] = {
    "full_grid": lambda model: {"tokens": None, "position": "pooled", "trunk": "full"},
    "uniform_grid": lambda model: {"partition": "grid"},
    "random_regions": lambda model: {"partition": "random"},
    "token_merging": lambda model: {**PLAIN, "tokens": model.tokens, "partition": "merge"},
    "large_patch": lambda model: {**PLAIN, "patch_px": 2 * model.patch_px},
    "lower_resolution": _lower_resolution,
}
