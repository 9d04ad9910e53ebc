"""A folder of weights as Hugging Face or timm save a vision transformer: what it is, and its tensors, complete.

The library itself reads it, so names of older versions and of wrappers (classifiers, towers of text and image) are its
business. What the folder does not say (how pixels are normalised) is asked for, not guessed.
"""

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from focusvit.drop_in.host_config import HostConfig
from focusvit.drop_in.hosts import find_host
from focusvit.drop_in.libraries import library, transformers_class, without_pooler
from pipeline.errors import UsageError, first_line
from pipeline.io import storage

from .files import read_weights

_LOOK = "preprocessor_config.json"
_FILES = ("model.safetensors", "pytorch_model.bin")


def read_host(uri: str) -> tuple[HostConfig, float, dict[str, Tensor]]:
    """(the host as it is, the share of the short side that its evaluation crops, weights of `HostModel`).

    Raises UsageError for a folder in a store, another kind of model, missing weights, or an unknown normalisation.
    """
    if not storage.is_local(uri):
        raise UsageError(f"weights of another library are read from a local folder; copy {uri} to this machine first.")
    folder = Path(uri)
    said = json.loads((folder / "config.json").read_text())
    try:
        read = _of_transformers if "model_type" in said else _of_timm
        host, config, crop = read(folder, said)
    except (TypeError, ValueError, KeyError, OSError, RuntimeError) as error:
        raise UsageError(f"{folder} cannot be taken as a host: {first_line(error)}") from None
    return config, crop, {f"host.{name}": value for name, value in host.state_dict().items()}


def _of_transformers(folder: Path, said: dict[str, Any]) -> tuple[nn.Module, HostConfig, float]:
    package = library("transformers")
    asked = package.AutoConfig.from_pretrained(folder, local_files_only=True)
    asked = getattr(asked, "vision_config", asked)  # CLIP and SigLIP: the tower for images
    if type(asked) not in package.MODEL_MAPPING:
        raise UsageError(f"{folder} is a '{said['model_type']}', which transformers {package.__version__} cannot load.")
    made = package.MODEL_MAPPING[type(asked)]
    if not issubclass(made, package.PreTrainedModel) or made is not transformers_class(made.__name__):
        raise UsageError(f"{folder}: {made.__name__} is no model of transformers itself.")
    with _quiet(package):
        host, found = made.from_pretrained(
            folder, config=asked, local_files_only=True, output_loading_info=True, dtype=torch.float32,
            **without_pooler(made),
        )  # fmt: skip
    _refuse_missing(folder, [name for name in found["missing_keys"] if "mask_token" not in name])
    look = json.loads((folder / _LOOK).read_text()) if (folder / _LOOK).exists() else {}
    if "image_mean" not in look or "image_std" not in look:
        raise UsageError(
            f"{folder} does not say how its pixels are normalised: {_LOOK} with image_mean and image_std is missing. "
            "Download it with the weights, or write it."
        )
    image_px, crop = _view(look, asked.image_size)
    left_out = ("id2label", "label2id", "_name_or_path")
    settings = {name: value for name, value in asked.to_diff_dict().items() if name not in left_out}
    pixels = (look["image_mean"], look["image_std"])
    return host, _config(host, "transformers", made.__name__, settings, image_px, *pixels), crop


def _view(look: dict[str, Any], own: Any) -> tuple[int, float]:
    """(side of the square input, its share of the resized short side) as an image processor says."""

    def side(value: Any) -> int | None:
        if isinstance(value, dict):
            value = value.get("height") or value.get("shortest_edge")
        return int(value) if value else None

    size, cropped = side(look.get("size")), side(look.get("crop_size"))
    own = own if isinstance(own, int) else own[0]
    if look.get("do_center_crop") and cropped:
        return cropped, min(1.0, cropped / (size or cropped))
    return size or own, 1.0


def _of_timm(folder: Path, said: dict[str, Any]) -> tuple[nn.Module, HostConfig, float]:
    package = library("timm")
    name, look = said["architecture"], said.get("pretrained_cfg", {})
    if not package.is_model(name):
        raise UsageError(f"{folder} is timm's '{name}', which timm {package.__version__} does not have.")
    settings = dict(said.get("model_args") or {})
    if said.get("global_pool") not in (None, ""):
        settings.setdefault("global_pool", said["global_pool"])
    image_px = int((look.get("input_size") or (3, 224, 224))[-1])
    settings.setdefault("img_size", image_px)
    host = package.create_model(name, pretrained=False, num_classes=0, **settings)
    file = next((folder / one for one in _FILES if (folder / one).exists()), None)
    if file is None:
        raise UsageError(f"{folder} has a config.json but none of {', '.join(_FILES)}. Download the weights as well.")
    weights, own = read_weights(file), host.state_dict()
    _refuse_missing(folder, [key for key in own if key not in weights or weights[key].shape != own[key].shape])
    left = [key for key in weights if key not in own and not key.startswith(("head.", "head_dist."))]
    if left:
        raise UsageError(f"{folder}: {left[0]} and {len(left) - 1} more tensors have no place in timm's '{name}'.")
    host.load_state_dict({key: weights[key].float() for key in own})
    if "mean" not in look or "std" not in look:
        raise UsageError(f"{folder} does not say how its pixels are normalised: write pretrained_cfg in config.json.")
    config = _config(host, "timm", name, settings, image_px, look["mean"], look["std"])
    return host, config, float(look.get("crop_pct") or 0.875)


def _config(
    host: nn.Module, package: Any, architecture: str, settings: dict[str, Any], image_px: int, mean: Any, std: Any
) -> HostConfig:
    parts = find_host(host)
    return HostConfig(
        library=package, architecture=architecture, settings=json.dumps(settings, sort_keys=True),
        image_px=image_px, patch_px=int(parts.patches.stride[0]), width=parts.patches.out_channels,
        depth=len(parts.blocks), mean=tuple(mean), std=tuple(std),
    )  # fmt: skip


def _refuse_missing(folder: Path, missing: list[str]) -> None:
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UsageError(
            f"{folder}: the weights of {missing[0]}{more} are missing or of another shape, so the model would answer "
            "at random. Download the folder again."
        )


@contextlib.contextmanager
def _quiet(package: Any) -> Iterator[None]:
    """Without progress bars, and without the note that a classifier of the file is not used."""
    level, had_bar = package.logging.get_verbosity(), package.logging.is_progress_bar_enabled()
    package.logging.set_verbosity(logging.CRITICAL)
    package.logging.disable_progress_bar()
    try:
        yield
    finally:
        package.logging.set_verbosity(level)
        if had_bar:
            package.logging.enable_progress_bar()
