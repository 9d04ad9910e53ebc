"""Every model of the original repository as a row: config, where its weights come from, what is frozen, learning rates.

Its "cross attention" has queries, keys and values from the same tokens, so it is self-attention with one head or
several; its "multi-head latent attention" is a sliding window with one extra map on keys and values. What its code did
otherwise by mistake (window over raster order, hard regions that vanish, positions that hardly differ) is not kept.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from focusvit.model.config import FocusViTConfig
from focusvit.model.presets import vit


@dataclass(frozen=True, kw_only=True)
class OriginalModel:
    """One experiment. `build` the model, load `pretrained` if it is true, `freeze`, then train with `lr_scales`."""

    about: str
    model: FocusViTConfig
    pretrained: bool = False
    """start from a ViT-B/16 (timm, Hugging Face or torchvision weights, `pretrained.load_pretrained`)"""
    freeze: tuple[str, ...] = ()
    """`groups.freeze` patterns"""
    lr: float = 1e-4
    lr_scales: dict[str, float] = field(default_factory=dict)
    """patterns of `OptimConfig.lr_scales` and their multiples"""
    weight_decay: float = 0.05


_HARD_SPPP: dict[str, Any] = {"tokens": 16, "overlap": "hard", "pooling": "mean", "position": "both"}
_WINDOW: dict[str, Any] = {"trunk": "window", "window": 7, "window_projection": True}
_BACKBONE = ("patch_embed", "cls_token", "pos_embed", "blocks")
_NEW_HEAD = {"head": 10.0}


def _base(**values: Any) -> FocusViTConfig:
    return vit("base", **{"num_classes": 10, "dropout": 0.1, **values})


def _window_scales() -> dict[str, float]:
    return {"blocks.*.attn.key_projection": 5.0, "blocks.*.attn.value_projection": 5.0, **_NEW_HEAD}


def original_models(**overrides: Any) -> dict[str, OriginalModel]:
    """Rows by name. `overrides` change every model (`num_classes=100`, `depth=2`, ...)."""
    plain = replace(_base(), **overrides)
    sppp = replace(_base(**_HARD_SPPP), **overrides)
    window = replace(_base(**_WINDOW), **overrides)
    sppp_window = replace(_base(**_HARD_SPPP, **_WINDOW), **overrides)
    rows = {
        "traditional": OriginalModel(about="ViT from scratch (M1)", model=plain),
        "sppp": OriginalModel(about="ViT with superpixel pooling (M2)", model=sppp),
        "sppp_max": OriginalModel(about="the same, maximum pooling", model=replace(sppp, pooling="max")),
        "sppp_attention": OriginalModel(about="the same, attention pooling", model=replace(sppp, pooling="attention")),
        "window": OriginalModel(about="ViT with window attention (M3)", model=window),
        "sppp_window": OriginalModel(about="superpixel pooling and window attention (M4)", model=sppp_window),
        "traditional_pretrained": OriginalModel(
            about="fine-tuned ViT", model=plain, pretrained=True, lr_scales=_NEW_HEAD
        ),
        "traditional_frozen": OriginalModel(
            about="ViT with frozen backbone", model=plain, pretrained=True, freeze=_BACKBONE, lr_scales=_NEW_HEAD
        ),
        "sppp_pretrained": OriginalModel(
            about="fine-tuned with superpixel pooling", model=sppp, pretrained=True,
            lr_scales={"position": 5.0, **_NEW_HEAD},
        ),
        "window_pretrained": OriginalModel(
            about="fine-tuned with window attention (M5)", model=window, pretrained=True, lr_scales=_window_scales()
        ),
        "sppp_window_pretrained": OriginalModel(
            about="fine-tuned with both (M6)", model=sppp_window, pretrained=True,
            lr_scales={"position": 5.0, **_window_scales()},
        ),
    }  # fmt: skip
    for heads, label in ((1, "cross"), (12, "multihead_cross")):
        for partition, number, config in (("traditional", "M7", plain), ("sppp", "M8", sppp)):
            model = replace(config, heads=heads)
            about = f"{label} attention, queries, keys and values of the same tokens, {partition} ({number})"
            rows[f"{label}_{partition}"] = OriginalModel(about=about, model=model)
            rows[f"{label}_{partition}_pretrained"] = OriginalModel(
                about=f"{about}, pretrained", model=model, pretrained=True, lr_scales=_NEW_HEAD
            )
    return rows
