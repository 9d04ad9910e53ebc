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

from focusvit.model.regions import overlap_matrix
from focusvit.segment.torch_slic import slic, to_unit_range

from .hosts import Parts, find_parts, first_norm, pool_keys, restore_keys
from .latents import latent_weights

Segmenter = Callable[[Tensor, int], Tensor]
_ATTRIBUTE = "_focusvit_patch"
_CALL = "_focusvit_call"


def patch(
    model: nn.Module, tokens: int = 64, grid_depth: int = 2, *, latents: int | None = None,
    segmenter: Segmenter | None = None,
    mean: tuple[float, ...] = (0.5, 0.5, 0.5), std: tuple[float, ...] = (0.5, 0.5, 0.5),
) -> nn.Module:  # fmt: skip
    """Pool the patches of `model` into `tokens` superpixels before block `grid_depth`, in place; returns `model`.

    Superpixel maps come from the keyword `maps` of a call, integer (B, Hm, Wm) with ids 0..tokens-1 and sides that are
    multiples of the patch grid (`model(pixels, maps=maps)`), else from `segmenter(pixels, tokens)`, by default
    `focusvit.segment.torch_slic.slic` on the pixels, whose normalisation `mean` and `std` undo. A head that averages
    tokens gives every superpixel the same weight.

    With `latents`, the blocks after pooling attend lightly (LLA's kv_pool): every token asks, and keys and values come
    from the class token and `latents` cells of a uniform grid, each the mean of the tokens painted on its pixels.

    A copy of a patched model is patched on its own. The hooks keep state during a call, so one model serves one call at
    a time: DistributedDataParallel, not DataParallel.

    Raises:
        TypeError: a class that cannot be patched.
        ValueError: a model that is patched already, a `grid_depth` that leaves no block after pooling, or no room for
            that many latents.
    """
    if hasattr(model, _ATTRIBUTE):
        raise ValueError(f"this {type(model).__name__} is patched already; call focusvit.unpatch(model) first")
    parts = find_parts(model)
    if not 0 <= grid_depth < len(parts.blocks) or tokens < 1:
        raise ValueError(
            f"grid_depth is {grid_depth} and tokens {tokens}; this model has {len(parts.blocks)} blocks: use "
            f"grid_depth 0..{len(parts.blocks) - 1} and at least 1 token"
        )
    if latents is not None and not 1 <= latents <= parts.num_patches:
        raise ValueError(f"latents is {latents}; this model has {parts.num_patches} patches: use 1..that, or None")
    state = Patch(tokens, latents, parts.patch_px, segmenter or DefaultSegmenter(tuple(mean), tuple(std)))
    try:
        state.attach(model, parts, grid_depth)
    except TypeError:  # latents in an attention that is not known: all or nothing
        state.detach(model)
        raise
    setattr(model, _ATTRIBUTE, state)
    return model


def unpatch(model: nn.Module) -> nn.Module:
    """Undo `patch`; a model that is not patched stays as it is. Returns `model`."""
    state = getattr(model, _ATTRIBUTE, None)
    if state is not None:
        state.detach(model)
        delattr(model, _ATTRIBUTE)
    return model


@dataclass(frozen=True)
class DefaultSegmenter:
    """`slic` on the pixels that the model gets, their normalisation undone. A class, so that patched models pickle."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, pixels: Tensor, tokens: int) -> Tensor:
        return slic(to_unit_range(pixels, self.mean, self.std), tokens)


@dataclass
class Call:
    """What one forward knows: `weights` (B, K, N) make tokens of patches, `pool` (B, M, K) latents of tokens."""

    weights: Tensor
    pool: Tensor | None = None


@dataclass
class Patch:
    """The hooks of one model and the state that they share."""

    tokens: int
    latents: int | None
    patch_px: tuple[int, int]
    segmenter: Segmenter
    maps: Tensor | None = None
    """maps of the coming call, when the caller gave them"""
    call: Call | None = None
    handles: list[RemovableHandle] = field(default_factory=list)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"maps": None, "call": None}  # a copy or a file carries no batch

    def attach(self, model: nn.Module, parts: Parts, grid_depth: int) -> None:
        later = list(parts.blocks)[grid_depth:]
        self.handles = [
            model.register_forward_pre_hook(self.take_maps, with_kwargs=True),
            parts.embedding.register_forward_pre_hook(self.segment, with_kwargs=True),
            later[0].register_forward_pre_hook(self.pool_patches, with_kwargs=True),
        ]
        if self.latents is not None:
            for block in later:
                self.handles.append(first_norm(block).register_forward_pre_hook(self.recall))
                self.handles += pool_keys(block, self.pool_latents)

    def detach(self, model: nn.Module) -> None:
        for handle in self.handles:
            handle.remove()
        for block in find_parts(model).blocks:
            restore_keys(block)

    # Hooks, in the order of a forward.

    def take_maps(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        rest = dict(kwargs)
        self.maps = rest.pop("maps", None)
        return args, rest

    def segment(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        pixels = args[0] if args else kwargs["pixel_values"]
        rows, columns = (side // px for side, px in zip(pixels.shape[-2:], self.patch_px))
        maps, self.maps = self.maps, None
        if maps is None:
            maps = self.segmenter(pixels, self.tokens)
        good = maps.ndim == 3 and maps.shape[0] == pixels.shape[0] and not maps.is_floating_point()
        if not good or maps.shape[1] % rows or maps.shape[2] % columns:
            raise ValueError(
                f"maps are {maps.dtype} {tuple(maps.shape)}; {pixels.shape[0]} images need integers (B, Hm, Wm), Hm a "
                f"multiple of {rows} and Wm of {columns} (the patch grid)"
            )
        overlap = overlap_matrix(maps, (rows, columns), self.tokens)
        weights = overlap / overlap.sum(2, keepdim=True).clamp(min=1e-6)
        self.call = Call(weights, latent_weights(overlap, (rows, columns), self.latents) if self.latents else None)

    def recall(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A block that is computed again in the backward pass gets the call of its own forward, not the latest: the
        checkpoint hands it the very tensor that it had then. Some libraries checkpoint a block without its hooks, so
        this stands on its first norm too.
        """
        x = args[0]
        if not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return
        known = getattr(x, _CALL, None)
        if known is None:
            setattr(x, _CALL, self.call)
        else:
            self.call = known

    def pool_patches(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        self.recall(module, args)
        assert self.call is not None
        x, weights = args[0], self.call.weights
        first = x.shape[1] - weights.shape[2]
        if first < 0:
            raise ValueError(
                f"the block got {x.shape[1]} tokens and the grid has {weights.shape[2]} patches: a model that drops "
                f"patches cannot be patched"
            )
        beside = [value for value in (*args[1:], *kwargs.values()) if isinstance(value, Tensor)]
        if any(x.shape[1] in value.shape or weights.shape[2] in value.shape for value in beside):
            raise ValueError(
                f"{type(module).__name__} got a tensor beside its tokens (an attention mask, rotary positions): it "
                f"counts patches, and a patched model pools them. Call the model without it, or unpatch the model"
            )
        return (torch.cat([x[:, :first], weights.to(x.dtype) @ x[:, first:]], 1), *args[1:]), kwargs

    def pool_latents(self, x: Tensor) -> Tensor:
        """(B, n, D) -> (B, n - K + M, D): what keys and values are made of."""
        assert self.call is not None and self.call.pool is not None
        pool = self.call.pool.to(x.dtype)
        first = x.shape[1] - pool.shape[2]
        return torch.cat([x[:, :first], pool @ x[:, first:]], 1)
