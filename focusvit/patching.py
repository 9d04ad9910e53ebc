"""`focusvit.patch`: superpixel pooling in a ViT of Hugging Face, timm or torchvision, undone by `focusvit.unpatch`.

Nothing of the model is replaced: hooks pool the patches into tokens before block `grid_depth`. Weights, their names,
the library's trainer and its saving stay as they are. Position embeddings are pooled with the patches that carry them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .regions import overlap_matrix
from .slic import slic, to_unit_range

Segmenter = Callable[[Tensor, int], Tensor]
_ATTRIBUTE = "_focusvit_patch"


@dataclass
class Patch:
    """The state that the hooks of one model share."""

    tokens: int
    grid: tuple[int, int]
    segmenter: Segmenter
    maps: Tensor | None = None
    """maps of the coming call, when the caller gave them"""
    weights: Tensor | None = None
    """(B, K, N) of the running call; kept for blocks that are computed again in the backward pass"""
    handles: list[RemovableHandle] = field(default_factory=list)


@dataclass(frozen=True)
class _Parts:
    embedding: nn.Module  # its first argument is the batch of pixels
    blocks: Any
    grid: tuple[int, int]


def patch(
    model: nn.Module, tokens: int = 64, grid_depth: int = 2, *, segmenter: Segmenter | None = None,
    mean: tuple[float, ...] = (0.5, 0.5, 0.5), std: tuple[float, ...] = (0.5, 0.5, 0.5),
) -> nn.Module:  # fmt: skip
    """Pool the patches of `model` into `tokens` superpixels before block `grid_depth`, in place; returns `model`.

    Superpixel maps come from the keyword `maps` of a call, integer (B, Hm, Wm) with ids 0..tokens-1 and sides that are
    multiples of the patch grid (`model(pixels, maps=maps)`), else from `segmenter(pixels, tokens)`, by default
    `focusvit.slic.slic` on the pixels, whose normalisation `mean` and `std` undo. A head that averages tokens gives
    every superpixel the same weight.

    Raises:
        TypeError: a class that cannot be patched.
        ValueError: a model that is patched already, or a `grid_depth` that leaves no block after pooling.
    """
    if hasattr(model, _ATTRIBUTE):
        raise ValueError(f"this {type(model).__name__} is patched already; call focusvit.unpatch(model) first")
    parts = _parts(model)
    if not 0 <= grid_depth < len(parts.blocks) or tokens < 1:
        raise ValueError(
            f"grid_depth is {grid_depth} and tokens {tokens}; this model has {len(parts.blocks)} blocks: use "
            f"grid_depth 0..{len(parts.blocks) - 1} and at least 1 token"
        )
    state = Patch(tokens, parts.grid, segmenter or _default_segmenter(mean, std))
    state.handles = [
        model.register_forward_pre_hook(_take_maps(state), with_kwargs=True),
        parts.embedding.register_forward_pre_hook(_segment(state), with_kwargs=True),
        parts.blocks[grid_depth].register_forward_pre_hook(_pool(state)),
    ]
    setattr(model, _ATTRIBUTE, state)
    return model


def unpatch(model: nn.Module) -> nn.Module:
    """Undo `patch`; a model that is not patched stays as it is. Returns `model`."""
    state = getattr(model, _ATTRIBUTE, None)
    if state is not None:
        for handle in state.handles:
            handle.remove()
        delattr(model, _ATTRIBUTE)
    return model


def _default_segmenter(mean: tuple[float, ...], std: tuple[float, ...]) -> Segmenter:
    return lambda pixels, tokens: slic(to_unit_range(pixels, mean, std), tokens)


def _take_maps(state: Patch) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        rest = dict(kwargs)
        state.maps = rest.pop("maps", None)
        return args, rest

    return hook


def _segment(state: Patch) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        pixels = args[0] if args else kwargs["pixel_values"]
        maps, state.maps = state.maps, None
        if maps is None:
            maps = state.segmenter(pixels, state.tokens)
        rows, columns = state.grid
        good = maps.ndim == 3 and maps.shape[0] == pixels.shape[0] and not maps.is_floating_point()
        if not good or maps.shape[1] % rows or maps.shape[2] % columns:
            raise ValueError(
                f"maps are {maps.dtype} {tuple(maps.shape)}; {pixels.shape[0]} images need integers (B, Hm, Wm), Hm a "
                f"multiple of {rows} and Wm of {columns} (the patch grid)"
            )
        overlap = overlap_matrix(maps, state.grid, state.tokens)
        state.weights = overlap / overlap.sum(2, keepdim=True).clamp(min=1e-6)

    return hook


def _pool(state: Patch) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        x, weights = args[0], state.weights
        assert weights is not None
        num_patches = weights.shape[2]
        first = x.shape[1] - num_patches
        if first < 0:
            raise ValueError(
                f"the block got {x.shape[1]} tokens and the grid has {num_patches}: pass images of the grid"
            )
        return (torch.cat([x[:, :first], weights.to(x.dtype) @ x[:, first:]], 1), *args[1:])

    return hook


def _parts(model: nn.Module) -> _Parts:
    """Where pixels enter and blocks lie, by structure, so that subclasses and forks of the three classes work too."""
    host: Any = getattr(model, "vit", model)
    if hasattr(host, "embeddings") and hasattr(host.embeddings, "patch_embeddings"):
        layers = getattr(host, "layers", None)
        layers = host.encoder.layer if layers is None and hasattr(host, "encoder") else layers
        size, side = host.embeddings.patch_embeddings.image_size, host.embeddings.patch_embeddings.patch_size
        if layers is not None and not hasattr(host.embeddings, "distillation_token"):
            return _Parts(host.embeddings, layers, (size[0] // side[0], size[1] // side[1]))
    if hasattr(host, "patch_embed") and hasattr(host, "blocks") and hasattr(host.patch_embed, "grid_size"):
        return _Parts(host.patch_embed, host.blocks, tuple(host.patch_embed.grid_size))
    if hasattr(host, "conv_proj") and hasattr(getattr(host, "encoder", None), "layers"):
        count = host.image_size // host.patch_size
        return _Parts(host.conv_proj, host.encoder.layers, (count, count))
    raise TypeError(
        f"{type(model).__module__}.{type(model).__name__} cannot be patched: it has neither the parts of Hugging "
        f"Face's ViTModel (embeddings, layers), nor of timm's VisionTransformer (patch_embed, blocks), nor of "
        f"torchvision's (conv_proj, encoder.layers). Patch the ViT in it, or load its weights (focusvit.pretrained)."
    )
