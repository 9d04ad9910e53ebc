"""What the attention of a patched block is told: the size of each key, rotary angles at regions' centres, latents as
keys.

Every library has an argument for what is added to the logits, so a hook is enough. Only latents replace a forward,
because two libraries fix the number of keys there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .hosts import Mask, arguments
from .pooling import Level, turned

Now = Callable[[], tuple[Level, tuple[int, int]]]
"""the level of a block in the present call, and the patch grid"""


@dataclass
class Told:
    """The hook of one attention (before its forward)."""

    now: Now
    names: tuple[str, ...]
    """of the attention's arguments"""
    mask: Mask
    kind: str
    """the attention implementation of a Hugging Face module"""
    latents: bool

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        level, grid = self.now()
        rest = dict(zip(self.names, args)) | kwargs
        x = rest[self.names[0]]
        if "flash" in self.kind or "flex" in self.kind:
            raise ValueError(
                f"attention implementation '{self.kind}' cannot weigh keys by the size of a superpixel: load the "
                f"model with attn_implementation='sdpa' or 'eager'"
            )
        # While a graph is traced transformers makes a mask that masks nothing, since it may not look whether it does.
        if rest.get(self.mask) is not None and not torch.compiler.is_compiling():
            raise ValueError(
                f"{type(module).__name__} got {self.mask}, which counts patches, and a patched model pools them. Call "
                f"the model without it, or unpatch the model"
            )
        for name in ("position_embeddings", "rope"):
            if rest.get(name) is not None:
                rest[name] = _rotary(rest[name], level, grid)
        if not self.latents or self.mask == "key_padding_mask":
            bias = level.key_bias(x, x.shape[1] - level.overlap.shape[1])
            rest[self.mask] = bias if self.mask == "key_padding_mask" else bias[:, None, None]
        if self.latents and self.mask == "key_padding_mask":  # torchvision's block calls its attention with (x, x, x)
            rest["key"] = rest["value"] = level.latents(x)
        return (), rest


def _rotary(found: Any, level: Level, grid: tuple[int, int]) -> Any:
    """Hugging Face hands (cos, sin), each (N, d); timm one (N, 2 d) of sin and cos."""
    whole = isinstance(found, Tensor)
    sin, cos = found.chunk(2, -1) if whole else (found[1], found[0])
    if cos.ndim != 2 or cos.shape[0] != level.overlap.shape[2]:
        raise ValueError(
            f"the model rotates by a table of {tuple(cos.shape)}, not by one row for each of {level.overlap.shape[2]} "
            f"patches: a patched model cannot tell the angle of a region"
        )
    cos, sin = turned(torch.stack([cos, sin]), level.centre(grid), grid)[:, :, None]
    return torch.cat([sin, cos], -1) if whole else (cos, sin)


def use_latents(attention: Any, now: Now) -> None:
    """Make an attention of Hugging Face or timm take its keys and values from latents, with its own weights.

    Raises TypeError for an attention that is none of the known ones.
    """
    if isinstance(attention, nn.MultiheadAttention):
        return
    if "position_embeddings" in arguments(attention) or "rope" in arguments(attention):
        raise TypeError(
            f"{type(attention).__name__} rotates its keys by their place, and latents have none: leave latents out"
        )
    if hasattr(attention, "qkv") and hasattr(attention, "attn_drop") and hasattr(attention, "proj"):
        attention.forward = _TimmLatents(attention, now)
    elif all(hasattr(attention, name) for name in ("q_proj", "k_proj", "v_proj")) and _out(attention) is not None:
        attention.forward = _HuggingFaceLatents(attention, now)
    else:
        raise TypeError(f"latents cannot be put into the attention {type(attention).__name__}; patch without latents")


def restore(attention: nn.Module) -> None:
    """Undo `use_latents`."""
    attention.__dict__.pop("forward", None)


def _out(attention: Any) -> Any:
    return getattr(attention, "o_proj", None) or getattr(attention, "out_proj", None)


@dataclass
class _TimmLatents:
    host: Any
    now: Now

    def __call__(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        host, (batch, count, _width) = self.host, x.shape
        level, _ = self.now()
        pooled, inner = level.latents(x), host.qkv.out_features // 3
        weight, bias = host.qkv.weight, host.qkv.bias
        q = functional.linear(x, weight[:inner], None if bias is None else bias[:inner])
        kv = functional.linear(pooled, weight[inner:], None if bias is None else bias[inner:])
        q = q.view(batch, count, host.num_heads, -1).transpose(1, 2)
        k, v = kv.view(batch, pooled.shape[1], 2, host.num_heads, -1).permute(2, 0, 3, 1, 4)
        rate = host.attn_drop.p if host.training else 0.0
        bias = level.key_bias(x, count - level.overlap.shape[1])[:, None, None]
        out = functional.scaled_dot_product_attention(host.q_norm(q), host.k_norm(k), v, attn_mask=bias, dropout_p=rate)
        out = out.transpose(1, 2).flatten(2)
        out = host.norm(out) if hasattr(host, "norm") else out
        if getattr(host, "gate", None) is not None:
            out = out * host.gate(x).sigmoid()
        return host.proj_drop(host.proj(out))


@dataclass
class _HuggingFaceLatents:
    host: Any
    now: Now

    def __call__(self, hidden_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor | None]:
        host, (level, _grid) = self.host, self.now()
        pooled = level.latents(hidden_states)
        q = _heads(host.q_proj(hidden_states), host.head_dim)
        k, v = _heads(host.k_proj(pooled), host.head_dim), _heads(host.v_proj(pooled), host.head_dim)
        drop = getattr(host, "attention_dropout", None)
        rate = (host.dropout if drop is None else drop) if host.training else 0.0
        scale = getattr(host, "scaling", None) or host.scale
        bias = level.key_bias(hidden_states, hidden_states.shape[1] - level.overlap.shape[1])[:, None, None]
        if host.config._attn_implementation == "eager":  # the one that can show its weights
            shares = torch.softmax(q @ k.transpose(-1, -2) * scale + bias, -1)
            out = functional.dropout(shares, rate) @ v
        else:
            shares, out = (
                None,
                functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=rate, scale=scale),
            )
        return _out(host)(out.transpose(1, 2).flatten(2)), shares


def _heads(x: Tensor, width: int) -> Tensor:
    """(B, n, heads d) -> (B, heads, n, d)."""
    return x.view(*x.shape[:2], -1, width).transpose(1, 2)


def keys_of(norm: nn.Module, attention: Any, x: Tensor) -> Tensor:
    """(B, n, D): the keys that an attention makes of the input of its block, before rotation and heads."""
    h = norm(x)
    if hasattr(attention, "k_proj") and attention.k_proj is not None:
        return attention.k_proj(h)
    if getattr(attention, "qkv", None) is not None:
        width = attention.qkv.out_features // 3
        return functional.linear(h, attention.qkv.weight[width : 2 * width])
    width = attention.embed_dim
    return functional.linear(h, attention.in_proj_weight[width : 2 * width])
