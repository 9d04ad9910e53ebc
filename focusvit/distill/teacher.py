"""A frozen vision transformer of Hugging Face or timm as a teacher of features: one row an image, one row a patch."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from focusvit.drop_in.hosts import find_host, pixel_statistics
from focusvit.weights.files import read_weights
from pipeline.errors import UsageError, first_line

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_WIDTHS = ("hidden_size", "num_features", "embed_dim", "width")


def teacher_width(folder: str) -> int:
    """D of the teacher in `folder`, from its config alone. Raises `UsageError` when it states none."""
    said = _config(folder)
    found = [value for name in _WIDTHS if isinstance(value := said.get(name), int)]
    found += [args[name] for name in _WIDTHS if isinstance((args := said.get("model_args") or {}).get(name), int)]
    if not found:
        raise UsageError(
            f"{folder}/config.json states no width ({', '.join(_WIDTHS)}): no vision transformer is in it."
        )
    return found[0]


class FeatureTeacher:
    """What a pretrained transformer says of images: its class token, and a row of features for each patch."""

    def __init__(self, folder: str, image_px: int, device: torch.device) -> None:
        """Raises `UsageError` for a folder that holds no vision transformer of either library, one whose record states
        no mean and std, and an image side that its patches do not divide."""
        said = _config(folder)
        model = _hugging_face(folder) if "model_type" in said else _timm(folder, said)
        try:
            patches = find_host(model).patches
        except TypeError as error:
            raise UsageError(f"the teacher in {folder} gives no features of patches: {error}.") from None
        side = patches.stride[0]
        if image_px % side:
            raise UsageError(
                f"the teacher in {folder} has patches of {side} px, which do not divide data.image_px {image_px}. Take "
                f"{image_px // side * side or side} or {(image_px // side + 1) * side}."
            )
        statistics = pixel_statistics(model)
        if statistics is None:
            raise UsageError(f"{folder} does not state the mean and std of its pixels (preprocessor_config.json).")
        self.grid = (image_px // side, image_px // side)
        self.width = teacher_width(folder)
        self.sha256 = hashlib.sha256(_weights_file(Path(folder)).read_bytes()).hexdigest()
        self._model = model.to(device).eval().requires_grad_(False)
        self._mean = 255 * torch.tensor(statistics[0], device=device).view(1, 3, 1, 1)
        self._std = 255 * torch.tensor(statistics[1], device=device).view(1, 3, 1, 1)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) -> (B, 2 + N, D) float32: class token (the mean of patches where there is none), mean of
        patches, N patches in raster order."""
        pixels = (images.float() - self._mean) / self._std
        rows = self._rows(pixels).float()
        patches = rows[:, rows.shape[1] - math.prod(self.grid) :]
        mean = patches.mean(1, keepdim=True)
        first = rows[:, :1] if rows.shape[1] > patches.shape[1] else mean
        return torch.cat([first, mean, patches], 1)

    def _rows(self, pixels: Tensor) -> Tensor:
        if hasattr(self._model, "forward_features"):
            return self._model.forward_features(pixels)  # type: ignore[operator]
        forward = self._model.forward
        more = {"interpolate_pos_encoding": True} if _takes(forward, "interpolate_pos_encoding") else {}
        return self._model(pixels, **more).last_hidden_state


def _takes(function: Any, name: str) -> bool:
    import inspect

    return name in inspect.signature(function).parameters


def _config(folder: str) -> dict[str, Any]:
    place = Path(folder, "config.json")
    try:
        said = json.loads(place.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the teacher {folder} is no folder of Hugging Face or timm on this machine: its config.json cannot be "
            f"read ({first_line(error)}). Download one with its weights, for example `hf download "
            "facebook/dinov2-small --local-dir DIR`."
        ) from None
    if not isinstance(said, dict) or not {"model_type", "architecture"} & set(said):
        raise UsageError(f"{place} names neither a model_type (Hugging Face) nor an architecture (timm).")
    return {**said, **(said.get("vision_config") or {})}


def _weights_file(folder: Path) -> Path:
    found = [folder / name for name in _WEIGHTS if (folder / name).exists()]
    if not found:
        raise UsageError(f"the teacher {folder} has a config.json but none of {', '.join(_WEIGHTS)}.")
    return found[0]


def _hugging_face(folder: str) -> nn.Module:
    _weights_file(Path(folder))
    try:
        from transformers import AutoModel
    except ImportError:
        raise UsageError(f"{folder} is a model of Hugging Face: `pip install transformers` reads it.") from None
    try:
        model = AutoModel.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UsageError(f"transformers does not read the teacher {folder}: {first_line(error)}") from None
    return getattr(model, "vision_model", model)


def _timm(folder: str, said: dict[str, Any]) -> nn.Module:
    try:
        import timm
    except ImportError:
        raise UsageError(f"{folder} is a model of timm: `pip install timm` reads it.") from None
    given = dict(said.get("model_args") or {})
    try:
        model = timm.create_model(said["architecture"], pretrained=False, num_classes=0, dynamic_img_size=True, **given)
        weights = read_weights(_weights_file(Path(folder)))
        missing = set(model.state_dict()) - set(weights)
        if missing:
            raise ValueError(f"the weights lack {sorted(missing)[0]}")
        model.load_state_dict({name: weights[name] for name in model.state_dict()})
    except (RuntimeError, ValueError, TypeError) as error:
        raise UsageError(f"timm does not read the teacher {folder}: {first_line(error)}") from None
    record = said.get("pretrained_cfg") or {}
    model.pretrained_cfg = {**model.pretrained_cfg, **record}
    return model
