"""Where pixels enter, blocks lie and keys are made in the ViTs of Hugging Face, timm and torchvision.

Found by structure, not by class, so that subclasses and forks work too and no library is imported.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

Pool = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Parts:
    embedding: nn.Module
    """its first argument is the batch of pixels"""
    blocks: Any
    patch_px: tuple[int, int]
    num_patches: int


def find_parts(model: nn.Module) -> Parts:
    """Raises TypeError for a class that has none of the three structures."""
    host: Any = getattr(model, "vit", model)
    embeddings: Any = getattr(host, "embeddings", None)
    if hasattr(embeddings, "patch_embeddings") and not hasattr(embeddings, "distillation_token"):
        layers = getattr(host, "layers", None)  # transformers 5; before: encoder.layer
        layers = getattr(getattr(host, "encoder", None), "layer", None) if layers is None else layers
        patches = embeddings.patch_embeddings
        if layers is not None and hasattr(patches, "patch_size") and hasattr(patches, "num_patches"):
            return Parts(embeddings, layers, _pair(patches.patch_size), patches.num_patches)
    if hasattr(host, "patch_embed") and hasattr(host, "blocks") and hasattr(host.patch_embed, "grid_size"):
        patches = host.patch_embed
        return Parts(patches, host.blocks, _pair(patches.patch_size), patches.num_patches)
    if hasattr(host, "conv_proj") and hasattr(getattr(host, "encoder", None), "layers"):
        side = host.patch_size
        return Parts(host.conv_proj, host.encoder.layers, (side, side), (host.image_size // side) ** 2)
    raise TypeError(
        f"{type(model).__module__}.{type(model).__name__} cannot be patched: it has neither the parts of Hugging "
        f"Face's ViTModel (embeddings, layers), nor of timm's VisionTransformer (patch_embed, blocks), nor of "
        f"torchvision's (conv_proj, encoder.layers). Patch the ViT in it, or load its weights "
        f"(focusvit.runs.pretrained)."
    )


def pool_keys(block: nn.Module, pool: Pool) -> list[RemovableHandle]:
    """Make the attention of `block` take keys and values from `pool(x)`, with its own weights; the hooks it took.

    Raises TypeError for an attention that is none of the three.
    """
    attention: Any = _attention(block)
    if isinstance(attention, nn.MultiheadAttention):
        return [attention.register_forward_pre_hook(_PoolArguments(pool), with_kwargs=True)]
    if hasattr(attention, "qkv") and hasattr(attention, "attn_drop"):
        attention.forward = _TimmAttention(attention, pool)
    elif all(hasattr(attention, name) for name in ("q_proj", "k_proj", "v_proj", "o_proj")):
        attention.forward = _HuggingFaceAttention(attention, pool)
    else:
        raise TypeError(f"latents cannot be put into the attention {type(attention).__name__}; patch without latents")
    return []


def first_norm(block: nn.Module) -> nn.Module:
    """The norm that the input of a pre-norm block meets first; the block itself when it has none."""
    return next((module for module in block.modules() if isinstance(module, nn.LayerNorm)), block)


def restore_keys(block: nn.Module) -> None:
    """Undo what `pool_keys` did outside of hooks."""
    _attention(block).__dict__.pop("forward", None)


def _attention(block: Any) -> nn.Module:
    names: Iterable[str] = ("attention", "attn", "self_attention", "self_attn")
    return next((getattr(block, name) for name in names if hasattr(block, name)), nn.Identity())


def _pair(side: Any) -> tuple[int, int]:
    return (side, side) if isinstance(side, int) else (side[0], side[1])


@dataclass
class _PoolArguments:
    """torchvision's block calls its attention with (x, x, x)."""

    pool: Pool

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        pooled = self.pool(args[0])
        return (args[0], pooled, pooled, *args[3:]), kwargs


@dataclass
class _TimmAttention:
    host: Any
    pool: Pool

    def __call__(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        host, (batch, count, _width) = self.host, x.shape
        pooled, inner = self.pool(x), host.qkv.out_features // 3
        weight, bias = host.qkv.weight, host.qkv.bias
        q = functional.linear(x, weight[:inner], None if bias is None else bias[:inner])
        kv = functional.linear(pooled, weight[inner:], None if bias is None else bias[inner:])
        q = q.view(batch, count, host.num_heads, -1).transpose(1, 2)
        k, v = kv.view(batch, pooled.shape[1], 2, host.num_heads, -1).permute(2, 0, 3, 1, 4)
        rate = host.attn_drop.p if host.training else 0.0
        out = functional.scaled_dot_product_attention(host.q_norm(q), host.k_norm(k), v, dropout_p=rate)
        out = out.transpose(1, 2).flatten(2)
        out = host.norm(out) if hasattr(host, "norm") else out
        if getattr(host, "gate", None) is not None:
            out = out * host.gate(x).sigmoid()
        return host.proj_drop(host.proj(out))


@dataclass
class _HuggingFaceAttention:
    host: Any
    pool: Pool

    def __call__(self, hidden_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor | None]:
        host, pooled = self.host, self.pool(hidden_states)
        q = _heads(host.q_proj(hidden_states), host.head_dim)
        k, v = _heads(host.k_proj(pooled), host.head_dim), _heads(host.v_proj(pooled), host.head_dim)
        rate = host.attention_dropout if host.training else 0.0
        if host.config._attn_implementation == "eager":  # the one that can show its weights
            shares = torch.softmax(q @ k.transpose(-1, -2) * host.scaling, -1)
            out = functional.dropout(shares, rate) @ v
        else:
            shares, out = None, functional.scaled_dot_product_attention(q, k, v, dropout_p=rate, scale=host.scaling)
        return host.o_proj(out.transpose(1, 2).flatten(2)), shares


def _heads(x: Tensor, width: int) -> Tensor:
    """(B, n, heads d) -> (B, heads, n, d)."""
    return x.view(*x.shape[:2], -1, width).transpose(1, 2)
