"""The rows of the original repository as recipes: `original_sppp`, `original_sppp_window_pretrained`, ...

Its settings where it had any: AdamW at 1e-4, decay 0.05, no warm-up, batches of 64, a head that learns ten times as
fast as pretrained weights. A cosine ends every run, and scores come from a split of their own: the original kept its
rate and chose on the test set. Rows called `_pretrained` and `_frozen` start from a ViT-B/16 of timm, Hugging Face or
torchvision: `--init-from FILE`, by default vit_b_16.safetensors in the current folder. None has been run here to the
end.

Its "cross attention" has queries, keys and values from the same tokens, so it is self-attention with one head or
several; its "multi-head latent attention" is a sliding window with one extra map on keys and values. What its code did
otherwise by mistake (hard regions that vanish, positions that hardly differ) is not kept, and its window over raster
order is one over centres here (`--model.window-over raster` is near to it).
"""

from dataclasses import replace
from typing import Any

from focusvit.data.config import DataConfig
from focusvit.model.presets import vit
from focusvit.train.config import OptimConfig, TrainConfig

from .table import ORIGINAL, Recipe

WEIGHTS_FILE = "vit_b_16.safetensors"
_SPPP: dict[str, Any] = {"tokens": 16, "overlap": "hard", "pooling": "mean", "position": "both"}
_WINDOW: dict[str, Any] = {"trunk": "window", "window": 7, "window_projection": True}
_BOTH = {**_SPPP, **_WINDOW}
_BACKBONE = ("patch_embed", "cls_token", "pos_embed", "blocks")
_WINDOW_SCALES = ("blocks.*.attn.key_projection=5", "blocks.*.attn.value_projection=5")


def originals(**overrides: Any) -> dict[str, Recipe]:
    """Every row by its name. `overrides` change the model of each (`num_classes=100`, `depth=2`, ...)."""

    def row(about: str, values: dict[str, Any], *, start: str | None = None, **optim: Any) -> Recipe:
        model = replace(vit("base", num_classes=10, dropout=0.1, **values), **overrides)
        data = DataConfig(
            image_px=model.image_size[0], map_px=112, crop_scale=(0.6, 1.0), eval_crop_fraction=1.0, loader_workers=8
        )
        config = TrainConfig(
            model=model, data=data, optim=OptimConfig(lr=1e-4, warmup_epochs=0.0, clip_norm=0.0, **optim), epochs=10,
            global_batch=64, label_smoothing=0.0, init_from=start,
        )  # fmt: skip
        time, score = "`focusvit cost` says it", "not measured"
        return Recipe(about=about, hardware="one GPU", time=time, score=score, config=config)

    def tuned(about: str, values: dict[str, Any], *scales: str) -> Recipe:
        """A row that starts from pretrained weights; `scales` are learning rates of parts beside that of the head."""
        return row(about, values, start=WEIGHTS_FILE, lr_scales=(*scales, "head=10"))

    frozen = tuned("ViT with frozen backbone", {})
    rows = {
        "traditional": row("ViT from scratch (M1)", {}),
        "sppp": row("ViT with superpixel pooling (M2)", _SPPP),
        "sppp_max": row("the same, maximum pooling", {**_SPPP, "pooling": "max"}),
        "sppp_attention": row("the same, attention pooling", {**_SPPP, "pooling": "attention"}),
        "window": row("ViT with window attention (M3)", _WINDOW),
        "sppp_window": row("superpixel pooling and window attention (M4)", _BOTH),
        "traditional_pretrained": tuned("fine-tuned ViT", {}),
        "traditional_frozen": replace(frozen, config=replace(frozen.config, freeze=_BACKBONE)),
        "sppp_pretrained": tuned("fine-tuned with superpixel pooling", _SPPP, "position=5"),
        "window_pretrained": tuned("fine-tuned with window attention (M5)", _WINDOW, *_WINDOW_SCALES),
        "sppp_window_pretrained": tuned("fine-tuned with both (M6)", _BOTH, "position=5", *_WINDOW_SCALES),
    }
    for heads, label in ((1, "cross"), (12, "multihead_cross")):
        for partition, number, values in (("traditional", "M7", {}), ("sppp", "M8", _SPPP)):
            about = f"{label} attention, queries, keys and values of the same tokens, {partition} ({number})"
            rows[f"{label}_{partition}"] = row(about, {**values, "heads": heads})
            rows[f"{label}_{partition}_pretrained"] = tuned(f"{about}, pretrained", {**values, "heads": heads})
    return rows


RECIPES: dict[str, Recipe] = {f"{ORIGINAL}{name}": row for name, row in originals().items()}
