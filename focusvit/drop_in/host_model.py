"""HostModel: a vision transformer of another library with the interface of `FocusViT`, patched as its config says.

What training, scoring, features, prediction and export ask of a model: `config` (image_size, grid, tokens, needs_maps,
mean, std, ...), `forward`, `features` and `dense_features` of (images, maps, num_tokens), and `blocks`. Both classes
have these, so nothing behind them asks which it is.
"""

import inspect
import json
from typing import Any

import torch
from torch import Tensor, nn

from focusvit.model.inputs import check_shapes
from focusvit.model.model import FocusViT
from focusvit.model.regions import overlap_matrix
from focusvit.model.slices import images_at_once, in_slices
from focusvit.segment.torch_slic import to_unit_range
from focusvit.segment.ward import merged_levels

from .controls import bipartite, merging_levels, uniform
from .host_config import HostConfig, ModelConfig
from .hosts import find_host
from .libraries import build_host
from .patch import Patch, patch


class HostModel(nn.Module):
    """The host, without its own classifier, and a linear head on its features."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: HostConfig) -> None:
        super().__init__()
        self.config = config
        self.images_at_once: int | None = None
        """at eager inference, the most images that run at a time; None = as the device likes (`slices`)"""
        self.host: Any = build_host(config)
        self.head: nn.Module = nn.Identity()
        for name, values in (("pixel_mean", config.mean), ("pixel_std", config.std)):
            self.register_buffer(name, 255 * torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        if config.num_classes:
            self.head = head = nn.Linear(config.width, config.num_classes)
            nn.init.trunc_normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)
        self._forward_options = _interpolating(self.host, config)
        self._patch = _patched(self.host, config)

    @property
    def blocks(self) -> list[nn.Module]:
        return find_host(self.host).blocks

    def forward(self, images: Tensor, maps: Tensor | None = None, num_tokens: int | None = None) -> Tensor:
        """Logits (B, num_classes); features where there is no head yet.

        Args:
            images: (B, 3, H, W), uint8 RGB, or float that is already normalised.
            maps: integer (B, Hm, Wm) superpixel ids 0..K-1, each present, where `config.needs_maps`; Hm and Wm are
                multiples of the patch grid.
            num_tokens: K of these maps, any number at any call (but with further levels); None is `config.tokens`.

        Raises:
            ValueError: shapes that do not fit the config (`FocusViT.forward`).
        """
        return self.head(self.features(images, maps, num_tokens))

    def features(self, images: Tensor, maps: Tensor | None = None, num_tokens: int | None = None) -> Tensor:
        """(B, D): the class token behind the last norm, else what the host's own pooling gives, else the mean of its
        patches (areas count); at inference in slices of the batch, as the device likes."""
        num_tokens = check_shapes(self.config, images, maps, num_tokens)

        def path(images: Tensor, maps: Tensor | None) -> Tensor:
            return self._image_and_patches(images, maps, num_tokens)[0]

        return in_slices(path, images, maps, most=images_at_once(images, self.images_at_once))

    def image_and_patches(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """`features` (B, D) and the last features of patches (B, N, D), of a host that takes no maps, in one pass."""
        check_shapes(self.config, images, None, None)
        return self._image_and_patches(images, None, None)

    def _image_and_patches(self, images: Tensor, maps: Tensor | None, num_tokens: int | None) -> tuple[Tensor, Tensor]:
        sequence, pooled = self._run(images, maps, num_tokens, keep_tokens=False)
        patches = sequence[:, sequence.shape[1] - self.config.num_patches :]
        return patches.mean(1) if pooled is None else pooled, patches

    def dense_features(self, images: Tensor, maps: Tensor | None = None, num_tokens: int | None = None) -> Tensor:
        """(B, K, D): the last features of each superpixel; of each patch (B, N, D) where the model takes no maps."""
        num_tokens = check_shapes(self.config, images, maps, num_tokens)
        sequence, _ = self._run(images, maps, num_tokens, keep_tokens=self.config.needs_maps)
        if self._patch is not None and self.config.needs_maps and self._patch.call is not None:
            levels = self._patch.call.levels
            tokens = sequence[:, sequence.shape[1] - levels[-1].weights.shape[1] :]
            for level in reversed(levels[1:]):  # a region of the shards' map has the features of its union
                tokens = (level.weights > 0).to(tokens.dtype).transpose(1, 2) @ tokens
            return tokens
        patches = sequence[:, sequence.shape[1] - self.config.num_patches :]
        if maps is None or num_tokens is None:
            return patches
        overlap = overlap_matrix(maps, self.config.grid, num_tokens)
        return (overlap / overlap.sum(2, keepdim=True).clamp(min=1e-6)).to(patches.dtype) @ patches

    def _run(
        self, images: Tensor, maps: Tensor | None, num_tokens: int | None, keep_tokens: bool
    ) -> tuple[Tensor, Tensor | None]:
        """(class token, registers and patches or tokens behind the last norm, what the host itself pools of them)."""
        pixels, given = self._normalized(images), dict[str, Any]()
        if self._patch is not None:
            self._patch.keep_tokens = keep_tokens
            if len(self._patch.levels) == 1 and num_tokens:
                self._patch.levels = ((self.config.pool_before, num_tokens),)
            given["maps"] = None if maps is None else self._maps_of_levels(images, maps, num_tokens)
        if self.config.library == "timm":
            if self._patch is not None:  # `forward_features` is no call of the model: no hook takes the maps
                self._patch.maps = given["maps"]
            sequence = self.host.forward_features(pixels)
            return sequence, None if keep_tokens else self.host.forward_head(sequence, pre_logits=True)
        out = self.host(pixels, **given, **self._forward_options)
        sequence = out.last_hidden_state
        if any(name.endswith("cls_token") for name, _ in self.host.named_parameters()):
            return sequence, sequence[:, 0]
        return sequence, getattr(out, "pooler_output", None)

    def _maps_of_levels(self, images: Tensor, maps: Tensor, num_tokens: int | None) -> list[Tensor]:
        """The map of the shards, and those of further levels: its regions merge by colour, as the shards' do."""
        budgets = [count for _, count in self.config.levels]
        if len(budgets) == 1:
            return [maps]
        if num_tokens != budgets[0]:
            raise ValueError(f"num_tokens is {num_tokens}; a model of levels {budgets} takes maps of {budgets[0]} only")
        unit = to_unit_range(images, self.config.mean, self.config.std)
        if unit.shape[-1] % maps.shape[-1] or unit.shape[-2] % maps.shape[-2]:  # a map of another scale, of dense tasks
            scale = 1.0 if unit.is_floating_point() else 255.0
            unit = nn.functional.interpolate(unit.float() / scale, maps.shape[1:], mode="bilinear")
        return [maps, *merged_levels(unit, maps, budgets)]

    def _normalized(self, images: Tensor) -> Tensor:
        weight = find_host(self.host).patches.weight
        if images.is_floating_point():
            return images.to(weight.dtype)
        exact = images.to(weight.dtype)  # a copy, so it is written over
        return exact.sub_(self.pixel_mean.to(weight.dtype)).div_(self.pixel_std.to(weight.dtype))


Model = FocusViT | HostModel


def build_model(config: ModelConfig) -> Model:
    """The model of a config, in fresh weights."""
    return HostModel(config) if isinstance(config, HostConfig) else FocusViT(config)


def _patched(host: nn.Module, config: HostConfig) -> Patch | None:
    if config.tokens is None or config.merge == "readout":
        find_host(host)  # a host that cannot be patched is refused from the start
        return None
    levels: dict[int, int] = dict(config.levels)
    if config.merge == "tome":
        levels = merging_levels(config.num_patches, config.tokens, config.depth)
    merge: Any = {"grid": uniform, "tome": bipartite}.get(config.merge, config.merge)
    mean, std = (config.mean, config.std) if merge == "colour" else (None, None)
    patch(host, dict(levels), merge=merge, latents=config.latents, mean=mean, std=std)
    return host._focusvit_patch  # type: ignore[return-value]


def _interpolating(host: nn.Module, config: HostConfig) -> dict[str, bool]:
    """What tells a Hugging Face model to interpolate its positions, where its input has another size than its own."""
    if config.library == "timm" or json.loads(config.settings).get("image_size") in (config.image_px, None):
        return {}
    takes = inspect.signature(host.forward).parameters
    return {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in takes else {}
