"""Self-attention of the trunk, in the forms that share one set of weights: full, windowed, kv-pool, gather-and-return.

Names (`qkv`, `proj`) are timm's. All go through `attend`.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from .config import FocusViTConfig
from .regions import EMPTY_BIAS, Regions

Trace = list[Tensor] | None


class AttentionContext(NamedTuple):
    """What a block's attention knows beside its tokens. Every field is optional."""

    key_bias: Tensor | None = None
    """(B, 1, 1 or n, n), added to the logits: log area, empty slots, windows."""
    pool: Tensor | None = None
    """(B, m, n) rows that average the n tokens into m latents (kv_pool, gather)."""
    pool_bias: Tensor | None = None
    """(B, 1, 1, m) log area of the latents, as keys."""


# The most weights of a head, queries times keys, for which two products of matrices beat the fused kernel on a CPU.
_MOST_AS_PRODUCTS = 512 * 512


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, trace: Trace = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v for (B, heads, ., d). With `trace`, the weights are appended to it.

    By torch's fused kernel, but in bfloat16 on a CPU, where its way back takes several times as long as the products.
    """
    if bias is not None:
        bias = bias.to(q.dtype)
    as_products = q.dtype == torch.bfloat16 and q.device.type == "cpu" and not torch.compiler.is_exporting()
    as_products = as_products and q.shape[-2] * k.shape[-2] <= _MOST_AS_PRODUCTS
    if trace is None and not as_products:
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    logits = q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)
    weights = torch.softmax(logits if bias is None else logits + bias, -1)
    if trace is not None:
        trace.append(weights.detach())
    return weights.to(v.dtype) @ v if as_products else functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def join_heads(x: Tensor) -> Tensor:
    """(B, heads, n, d) -> (B, n, heads d).

    A view of what the fused kernel returns. Exporting must not record that view: the exporter takes the kernel apart
    again, and its parts return other strides.
    """
    return torch.cat(x.unbind(1), -1) if torch.compiler.is_exporting() else x.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    def __init__(self, config: FocusViTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.trunk = config.trunk
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.proj = nn.Linear(config.width, config.width)
        self.drop = nn.Dropout(config.dropout)
        width, projects = config.width // config.heads, config.window_projection
        self.key_projection = nn.Linear(width, width, bias=False) if projects else None
        self.value_projection = nn.Linear(width, width, bias=False) if projects else None

    def reset_start(self) -> None:
        for projection in (self.key_projection, self.value_projection):
            if projection is not None:
                nn.init.eye_(projection.weight)

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, n, c D) -> c tensors (B, heads, n, d)."""
        B, n = x.shape[:2]
        head_width = self.proj.in_features // self.heads
        return x.view(B, n, -1, self.heads, head_width).permute(2, 0, 3, 1, 4).unbind(0)

    def merge(self, x: Tensor) -> Tensor:
        """(B, heads, n, d) -> (B, n, D), projected."""
        return self.drop(self.proj(join_heads(x)))

    def forward(self, x: Tensor, context: AttentionContext | None = None, trace: Trace = None) -> Tensor:
        """(B, n, D) -> (B, n, D)."""
        context = context or AttentionContext()
        if context.pool is None:
            q, k, v = self.split(self.qkv(x))
            if self.key_projection is not None and self.value_projection is not None:
                k, v = self.key_projection(k), self.value_projection(v)
            return self.merge(attend(q, k, v, context.key_bias, trace))
        if self.trunk == "kv_pool":
            return self._kv_pool(x, context.pool, context, trace)
        return self._gather(x, context.pool, context, trace)

    def _kv_pool(self, x: Tensor, pool: Tensor, context: AttentionContext, trace: Trace) -> Tensor:
        """Tokens ask, pooled tokens answer: keys and values are computed for m rows instead of n."""
        width = self.proj.in_features
        pooled = pool.to(x.dtype) @ x
        (q,) = self.split(functional.linear(x, self.qkv.weight[:width], self.qkv.bias[:width]))
        k, v = self.split(functional.linear(pooled, self.qkv.weight[width:], self.qkv.bias[width:]))
        return self.merge(attend(q, k, v, context.pool_bias, trace))

    def _gather(self, x: Tensor, pool: Tensor, context: AttentionContext, trace: Trace) -> Tensor:
        """Latents (pooled queries) gather from all tokens, then every token reads the latents: 2 n m instead of n^2."""
        q, k, v = self.split(self.qkv(x))
        latents = pool.to(q.dtype)[:, None] @ q
        gathered = attend(latents, k, v, context.key_bias, trace)
        return self.merge(attend(q, latents, gathered, context.pool_bias, trace))


def with_class_token(bias: Tensor, readout: str) -> Tensor:
    """Key bias (B, K) -> (B, 1, 1, n): the class token, when there is one, comes first with bias 0."""
    if readout == "cls":
        bias = functional.pad(bias, (1, 0))
    return bias[:, None, None, :]


def plane_places(regions: Regions, height: int, width: int) -> Tensor:
    """Centres in the image plane (B, K, 2), in pixels' proportions."""
    y, x = regions.centre.unbind(-1)
    return torch.stack([y * (height / width), x], -1)


def raster_places(regions: Regions, height: int, width: int) -> Tensor:
    """Each region's number in raster order (B, K, 1): centres from line to line, as many lines as a grid of as many
    cells has, and from left to right in a line; regions that are nowhere come last.
    """
    y, x = regions.centre.float().unbind(-1)  # also in a model of bfloat16, which cannot count them
    present = regions.area > 0
    lines = (present.sum(1, keepdim=True) * (height / width)).sqrt().round().clamp(min=1)
    key = ((y * lines).floor() * 2 + x).masked_fill(~present, float("inf"))
    return (key[:, :, None] > key[:, None, :]).float().sum(-1, keepdim=True)


def window_bias(places: Tensor, regions: Regions, window: int, readout: str) -> Tensor:
    """Window attention: (B, 1, n, n), 0 for the `window` tokens whose `places` (B, K, d) are nearest, else masked.

    Places as near as the last one are kept too, so the order of tokens does not matter. The class token sees and is
    seen by all.
    """
    difference = places[:, :, None, :] - places[:, None, :, :]
    distance = difference.square().sum(-1)
    empty = (regions.area <= 0)[:, None, :]
    distance = distance.masked_fill(empty, float("inf"))
    # Not kthvalue: ONNX has no such operator.
    last = distance.topk(min(window, distance.shape[-1]), dim=-1, largest=False).values[..., -1:]
    bias = torch.where((distance <= last * (1 + 1e-4) + 1e-9) & ~empty, 0.0, EMPTY_BIAS)
    if readout == "cls":
        class_row = torch.where(empty, EMPTY_BIAS, 0.0)
        bias = functional.pad(torch.cat([class_row, bias], 1), (1, 0))
    return bias[:, None]
