"""Weights of a ViT from timm, Hugging Face or torchvision in a FocusViT: all of them, or each missing one named."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from focusvit.model.latents import LatentRead
from focusvit.model.model import FocusViT

from .files import read_weights
from .names import to_timm_names

NEW_PARTS = ("head.", "pool.", "position.", "latent_start.", "reads.")
"""Parts that a pretrained ViT does not have: they may keep their initial weights."""
NEW_IN_BLOCKS = (".attn.key_projection.", ".attn.value_projection.")


class LoadReport(NamedTuple):
    """What no tensor of the file was for, and what of the file found no use: everything else was set."""

    new: tuple[str, ...]
    """weights of the model that keep their initial values"""
    left_out: dict[str, str]
    """tensors of the file that were not used, each with the reason"""

    def __str__(self) -> str:
        """'new are head, pool; not used are cls_token (the model reads by ...)'; parts, not their tensors."""
        parts = dict.fromkeys(name.rpartition(".")[0] or name for name in self.new)
        unused = [f"{name} ({reason})" for name, reason in self.left_out.items()]
        told = [f"{what} {', '.join(names)}" for what, names in (("new are", parts), ("not used are", unused)) if names]
        return "; ".join(told) or "all weights were set"


def load_pretrained(model: FocusViT, weights: Mapping[str, Tensor] | str | Path) -> LoadReport:
    """Put the weights of a plain ViT into `model`, in place.

    A head for other classes and Hugging Face's pooler are left out and reported; so are the class token and its
    position when the model reads by the mean. Position embeddings are interpolated to the model's patch grid. Latent
    reads, which no ViT has, start silent.

    Raises:
        ValueError: naming every tensor of the file without a place in the model and every weight of the model,
            outside the parts that only FocusViT has, without a tensor. The model is then unchanged.
    """
    given, origin = to_timm_names(read_weights(weights) if isinstance(weights, str | Path) else weights)
    distilled = next((origin[name] for name in given if "dist_token" in name or "distillation_token" in name), None)
    if distilled:
        raise ValueError(
            f"the weights have a distillation token ({distilled}), to which every block attends; FocusViT has a class "
            "token alone, so its answers would be others. Take the same model as it was trained without one"
        )
    state = model.state_dict()
    left_out: dict[str, str] = {}
    accepted, unmapped = {}, []
    for name, value in given.items():
        reason = _reason_to_leave(model, name, value)
        if reason:
            left_out[origin[name]] = reason
            continue
        if name == "pos_embed" and name in state and value.shape != state[name].shape:
            value = resize_positions(value, model)
        if name not in state:
            unmapped.append(f"{origin[name]} {tuple(value.shape)}: the model has no such part")
        elif value.shape != state[name].shape:
            unmapped.append(f"{origin[name]} {tuple(value.shape)}: the model's {name} is {tuple(state[name].shape)}")
        else:
            accepted[name] = value
    new = [name for name in state if name not in accepted]
    bare = [n for n in new if not n.startswith(NEW_PARTS) and not any(part in n for part in NEW_IN_BLOCKS)]
    if unmapped or bare:
        lines = [f"not placed: {line}" for line in unmapped] + [f"no tensor for: {name}" for name in bare]
        raise ValueError(f"the weights do not fit the model: {'; '.join(lines)}. Change the config")
    model.load_state_dict(accepted, strict=False)
    for module in model.modules():
        if isinstance(module, LatentRead):  # a read that adds nothing at first leaves the pretrained stream as it is
            nn.init.zeros_(module.proj.weight)
    return LoadReport(tuple(new), left_out)


def _reason_to_leave(model: FocusViT, name: str, value: Tensor) -> str | None:
    if name.startswith("head.") and value.shape[0] != model.config.num_classes:
        return f"a head for {value.shape[0]} classes; the model has {model.config.num_classes}"
    if name == "cls_token" and not model.num_class_tokens:
        return "the model reads by the mean and has no class token"
    if "pooler." in name:
        return "a pooler between norm and head, which FocusViT does not have"
    if name.endswith("embeddings.mask_token"):
        return "a mask token for masked pretraining"
    return None


def resize_positions(positions: Tensor, model: FocusViT) -> Tensor:
    """(1, 1 + n, D) or (1, n, D) of a square grid -> the model's grid and class token, bicubic.

    Raises:
        ValueError: the number of positions is no square, with or without a class token.
    """
    count = positions.shape[1]
    first = next((c for c in (1, 0) if round((count - c) ** 0.5) ** 2 == count - c), None)
    if first is None:
        raise ValueError(f"pos_embed has {count} positions: not a square grid, with or without a class token")
    side = round((count - first) ** 0.5)
    table = positions[:, first:].reshape(1, side, side, -1).permute(0, 3, 1, 2).float()
    if (side, side) != model.config.grid:
        table = nn.functional.interpolate(table, model.config.grid, mode="bicubic", align_corners=False, antialias=True)
    table = table.flatten(2).transpose(1, 2).to(positions.dtype)
    if not model.num_class_tokens:
        return table
    head = positions[:, :1] if first else torch.zeros_like(positions[:, :1])
    return torch.cat([head, table], 1)
