"""A plain ViT of Hugging Face or timm as a checkpoint of ours, so that the same suite measures it.

A folder as either library downloads it: `config.json` and `model.safetensors` (or `pytorch_model.bin`). It is converted
once into an ordinary checkpoint folder; nothing after that knows where the weights came from.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from focusvit.data.config import DataConfig
from focusvit.model.config import FocusViTConfig
from focusvit.model.model import FocusViT
from focusvit.runs.checkpoint import Checkpoint, save_checkpoint
from focusvit.runs.config_json import to_json
from focusvit.weights.files import read_weights
from focusvit.weights.pretrained import load_pretrained
from pipeline.errors import UsageError
from pipeline.io import storage

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_TIMM_HEADS = {"tiny": 3, "small": 6, "base": 12, "large": 16}


def as_checkpoint(uri: str, out: str) -> str:
    """`uri` itself when it holds one of our checkpoints; a downloaded ViT is converted to a folder in `out` first.

    Raises UsageError for a folder that is neither, or a ViT that FocusViT does not have (the tensors are named).
    """
    if storage.exists(storage.join(uri, "checkpoint.json")) or not storage.exists(storage.join(uri, "config.json")):
        return uri
    said = storage.read_json(storage.join(uri, "config.json"))
    if not isinstance(said, dict) or not ({"model_type", "architecture"} & set(said)):
        return uri  # the config.json of a run directory
    if not storage.is_local(uri):
        raise UsageError(f"weights of another library are read from a local folder; copy {uri} to this machine first.")
    return _converted(Path(uri), said, out)


def _converted(folder: Path, said: dict[str, Any], out: str) -> str:
    name = next((name for name in _WEIGHTS if (folder / name).exists()), None)
    if name is None:
        raise UsageError(f"{folder} has a config.json but none of {', '.join(_WEIGHTS)}. Download the weights as well.")
    model_config, crop = _hugging_face(folder, said) if "model_type" in said else _timm(folder, said)
    digest = hashlib.sha256((folder / name).read_bytes())
    digest.update(json.dumps([to_json(model_config), crop], sort_keys=True).encode())
    place = storage.join(out, "converted", f"{folder.name}-{digest.hexdigest()[:12]}")
    if storage.exists(storage.join(place, "checkpoint.json")):
        return place
    model = FocusViT(model_config)
    try:
        report = load_pretrained(model, read_weights(folder / name))
    except ValueError as error:
        raise UsageError(
            f"{folder}: {error}. Only plain ViTs (class token, learned positions) can be loaded."
        ) from None
    classes = said.get("id2label") or said.get("label_names") or {}
    names = tuple(str(classes[str(i)] if isinstance(classes, dict) else classes[i]) for i in range(len(classes)))
    num_classes = model_config.num_classes
    record = Checkpoint(
        config={"data": to_json(DataConfig(image_px=model_config.image_size[0], eval_crop_fraction=crop))},
        model=to_json(model_config),
        classes=names if len(names) == num_classes else tuple(str(i) for i in range(num_classes)),
        versions={"converted_from": str(folder), "left_out": ", ".join(report.left_out)},
    )
    save_checkpoint(place, record, model.state_dict())
    return place


def _hugging_face(folder: Path, said: dict[str, Any]) -> tuple[FocusViTConfig, float]:
    """The config of a `ViTModel` or `ViTForImageClassification`; its processor resizes the whole image (crop 1)."""
    if said["model_type"] != "vit":
        raise UsageError(
            f"{folder} is a '{said['model_type']}' of Hugging Face; only its plain ViTs ('vit') can be measured."
        )
    if said.get("hidden_act", "gelu") != "gelu" or not said.get("qkv_bias", True):
        raise UsageError(f"{folder} has another activation than gelu or no query bias; FocusViT's blocks have both.")
    processor = folder / "preprocessor_config.json"
    look = json.loads(processor.read_text()) if processor.exists() else {}
    half = [0.5, 0.5, 0.5]
    config = _plain(
        image_px=said["image_size"],
        patch_px=said["patch_size"],
        width=said["hidden_size"],
        depth=said["num_hidden_layers"],
        heads=said["num_attention_heads"],
        mlp_ratio=said["intermediate_size"] / said["hidden_size"],
        num_classes=max(1, len(said.get("id2label") or {})),
        norm_eps=said.get("layer_norm_eps", 1e-12),
        mean=tuple(look.get("image_mean", half)),
        std=tuple(look.get("image_std", half)),
    )
    return config, 1.0


def _timm(folder: Path, said: dict[str, Any]) -> tuple[FocusViTConfig, float]:
    """The config of a VisionTransformer that timm saved for the hub; shapes come from its tensors."""
    name, cfg = said["architecture"], said.get("pretrained_cfg", {})
    size = next((size for size in _TIMM_HEADS if f"_{size}_" in name), None)
    args = said.get("model_args", {})
    if not name.startswith(("vit_", "deit_")) or (size is None and "num_heads" not in args):
        known = ", ".join(_TIMM_HEADS)
        raise UsageError(f"{folder} is timm's '{name}'; plain vit_ and deit_ models of sizes {known} can be measured.")
    weights = read_weights(next(folder / name for name in _WEIGHTS if (folder / name).exists()))
    try:
        width, patch = weights["patch_embed.proj.weight"].shape[0], weights["patch_embed.proj.weight"].shape[-1]
        hidden = weights["blocks.0.mlp.fc1.weight"].shape[0]
    except KeyError as error:
        raise UsageError(f"{folder} lacks the tensor {error}: it is no VisionTransformer of timm.") from None
    config = _plain(
        image_px=tuple(cfg.get("input_size", (3, 224, 224)))[-1],
        patch_px=patch,
        width=width,
        depth=len({key.split(".")[1] for key in weights if key.startswith("blocks.")}),
        heads=args.get("num_heads") or _TIMM_HEADS[str(size)],
        mlp_ratio=hidden / width,
        num_classes=max(1, int(said.get("num_classes", 0))),
        mean=tuple(cfg.get("mean", (0.5, 0.5, 0.5))),
        std=tuple(cfg.get("std", (0.5, 0.5, 0.5))),
    )
    return config, float(cfg.get("crop_pct") or 0.875)


def _plain(**values: Any) -> FocusViTConfig:
    return FocusViTConfig(**values, stem="linear", grid_depth=0, tokens=None, position="pooled", trunk="full")
