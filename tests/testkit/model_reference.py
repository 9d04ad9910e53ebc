"""Slow, obvious references for the model: python loops over regions and patches, and a ViT without modules."""

import numpy as np
import torch
from torch import Tensor

from focusvit.model.config import FocusViTConfig
from focusvit.model.partitions import random_cells

TINY = {"image_px": (16, 24), "patch_px": 4, "width": 16, "depth": 4, "heads": 2, "num_classes": 5, "num_latents": 3}


def tiny_config(**values: object) -> FocusViTConfig:
    """24 patches in 4 rows of 6, 7 tokens."""
    return FocusViTConfig(**{**TINY, "tokens": 7, "grid_depth": 1, **values})


VARIANTS: dict[str, dict[str, object]] = {
    "default": {},
    "linear_stem": {"stem": "linear", "grid_depth": 0},
    "mean": {"pooling": "mean"},
    "hard": {"overlap": "hard", "pooling": "mean"},
    "hard_mean_std": {"overlap": "hard"},
    "hard_attention": {"overlap": "hard", "pooling": "attention"},
    "max": {"pooling": "max"},
    "hard_max": {"pooling": "max", "overlap": "hard"},
    "attention": {"pooling": "attention"},
    "descriptor": {"position": "descriptor"},
    "pooled": {"position": "pooled"},
    "area_bias": {"area_bias": True},
    "read_mean": {"readout": "mean"},
    "latent": {"trunk": "latent"},
    "latent_mean": {"trunk": "latent", "readout": "mean", "num_reads": 3},
    "latent_learned": {"trunk": "latent", "latent_start": "learned"},
    "hybrid": {"trunk": "hybrid", "num_reads": 1},
    "hybrid_area_bias": {"trunk": "hybrid", "num_reads": 1, "area_bias": True, "latent_start": "learned"},
    "hybrid_descriptor": {"trunk": "hybrid", "num_reads": 1, "position": "descriptor", "readout": "mean"},
    "kv_pool": {"trunk": "kv_pool"},
    "kv_pool_learned": {"trunk": "kv_pool", "latent_start": "learned", "position": "descriptor"},
    "gather": {"trunk": "gather", "readout": "mean"},
    "gather_hard": {"trunk": "gather", "overlap": "hard", "pooling": "max", "position": "pooled"},
    "window": {"trunk": "window", "window": 3},
    "window_raster": {"trunk": "window", "window": 3, "window_over": "raster"},
    "window_projection": {"trunk": "window", "window": 3, "window_projection": True, "readout": "mean"},
}
NESTED_VARIANTS: dict[str, dict[str, object]] = {
    "nested": {"then": ((2, 5), (3, 2)), "area_bias": True},
    "nested_mean": {"then": ((3, 4),), "readout": "mean"},
}
CONTROL_VARIANTS: dict[str, dict[str, object]] = {
    "plain": {"tokens": None, "stem": "linear", "position": "pooled", "grid_depth": 0},
    "plain_both": {"tokens": None, "readout": "mean"},
    "plain_latent": {"tokens": None, "trunk": "latent"},
    "plain_window": {"tokens": None, "trunk": "window", "grid_depth": 0},
    "plain_window_raster": {"tokens": None, "trunk": "window", "window_over": "raster"},
    "plain_gather": {"tokens": None, "trunk": "gather"},
    "grid_cells": {"partition": "grid"},
    "random_cells": {"partition": "random"},
    "merge": {"partition": "merge", "readout": "mean"},
    "merge_class": {"partition": "merge", "grid_depth": 0},
}


def shaken(model: torch.nn.Module, seed: int = 1) -> torch.nn.Module:
    """Random values in every weight, those that start at zero too, so that no path is silent in a test."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.1 * torch.randn(value.shape, generator=generator, dtype=value.dtype))
    return model


def images(num: int, config: FocusViTConfig, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num, 3, *config.image_size), generator=generator, dtype=torch.uint8)


def maps(num: int, config: FocusViTConfig, num_tokens: int, scale: int = 2, seed: int = 0) -> Tensor:
    """Random maps of exactly `num_tokens` regions each, at `scale` map pixels a patch side."""
    height, width = (side * scale for side in config.grid)
    drawn = [random_cells(num_tokens, height, width, seed * 1000 + i) for i in range(num)]
    return torch.from_numpy(np.stack(drawn)).to(torch.uint8 if num_tokens <= 256 else torch.int16)


def inputs(config: FocusViTConfig, num: int = 3, num_tokens: int | None = None) -> dict[str, Tensor]:
    """What forward takes: images, and the maps of variants that need them."""
    num_tokens = num_tokens or config.tokens or 0
    found = {"images": images(num, config)}
    if config.needs_maps:
        found["maps"] = maps(num, config, num_tokens)
    return found


def patch_map(config: FocusViTConfig, scale: int = 1) -> Tensor:
    """(1, h, w): every patch its own region, in raster order."""
    rows, columns = config.grid
    ids = torch.arange(rows * columns).view(1, rows, columns)
    return ids.repeat_interleave(scale, 1).repeat_interleave(scale, 2)


def overlap_loop(map_: np.ndarray, grid: tuple[int, int], num_tokens: int) -> np.ndarray:
    """O[k, j] by the definition: pixels of region k in patch j over pixels of patch j."""
    rows, columns = grid
    high, wide = map_.shape[0] // rows, map_.shape[1] // columns
    overlap = np.zeros((num_tokens, rows * columns))
    for y in range(map_.shape[0]):
        for x in range(map_.shape[1]):
            overlap[map_[y, x], (y // high) * columns + x // wide] += 1
    return overlap / (high * wide)


def regions_loop(map_: np.ndarray, num_tokens: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Area, centre and covariance, each pixel being cut into 8 x 8 points."""
    height, width = map_.shape
    offset = (np.arange(8) + 0.5) / 8
    area, centre, covariance = np.zeros(num_tokens), np.zeros((num_tokens, 2)), np.zeros((num_tokens, 3))
    for k in range(num_tokens):
        y, x = np.nonzero(map_ == k)
        if len(y) == 0:
            continue
        yy = ((y[:, None, None] + offset[:, None]) / height + 0 * offset[None, :]).ravel()
        xx = ((x[:, None, None] + offset[None, :]) / width + 0 * offset[:, None]).ravel()
        area[k] = len(y) / (height * width)
        centre[k] = yy.mean(), xx.mean()
        covariance[k] = yy.var(), xx.var(), ((yy - yy.mean()) * (xx - xx.mean())).mean()
    return area, centre, covariance


def harden_loop(overlap: np.ndarray) -> np.ndarray:
    """Each patch to its largest region; a region without a patch joins its best one. Without ties."""
    member = np.zeros_like(overlap)
    for j in range(overlap.shape[1]):
        if overlap[:, j].max() > 0:
            member[overlap[:, j].argmax(), j] = 1
    for k in range(overlap.shape[0]):
        if member[k].sum() == 0 and overlap[k].max() > 0:
            member[k, overlap[k].argmax()] = 1
    return member


def pool_loop(patches: np.ndarray, membership: np.ndarray, mode: str, score: np.ndarray | None = None) -> np.ndarray:
    """Mean, maximum, (mean, std) or saliency-weighted mean of each region, one region and one patch at a time."""
    tokens = []
    for weights in membership:
        inside = [j for j in range(len(weights)) if weights[j] > 0]
        share = weights / weights.sum()
        if mode == "max":
            tokens.append(np.max([patches[j] for j in inside], axis=0))
            continue
        if mode == "attention":
            share = weights * np.exp(score)
            share = share / share.sum()
        mean = sum(share[j] * patches[j] for j in inside)
        if mode == "std":
            variance = sum(share[j] * (patches[j] - mean) ** 2 for j in inside)
            tokens.append(np.sqrt(variance + 1e-5) - np.sqrt(1e-5))
        else:
            tokens.append(mean)
    return np.stack(tokens)


def vit_reference(weights: dict[str, Tensor], config: FocusViTConfig, image: Tensor) -> Tensor:
    """Logits (classes,) of a plain ViT for one float image (3, H, W), from weights with timm's names."""
    p = config.patch_px
    rows, columns = config.grid
    patches = [image[:, y * p : y * p + p, x * p : x * p + p].flatten() for y in range(rows) for x in range(columns)]
    x = torch.stack(patches) @ weights["patch_embed.proj.weight"].flatten(1).T + weights["patch_embed.proj.bias"]
    x = torch.cat([weights["cls_token"][0], x]) + weights["pos_embed"][0]
    for i in range(config.depth):
        w = {k.removeprefix(f"blocks.{i}."): v for k, v in weights.items() if k.startswith(f"blocks.{i}.")}
        h = _norm(x, w["norm1.weight"], w["norm1.bias"], config.norm_eps)
        q, k, v = (h @ w["attn.qkv.weight"].T + w["attn.qkv.bias"]).chunk(3, 1)
        d = config.width // config.heads
        heads = []
        for a in range(config.heads):
            s = slice(a * d, a * d + d)
            heads.append(torch.softmax(q[:, s] @ k[:, s].T / d**0.5, 1) @ v[:, s])
        x = x + torch.cat(heads, 1) @ w["attn.proj.weight"].T + w["attn.proj.bias"]
        h = _norm(x, w["norm2.weight"], w["norm2.bias"], config.norm_eps)
        h = h @ w["mlp.fc1.weight"].T + w["mlp.fc1.bias"]
        h = h * 0.5 * (1 + torch.erf(h / 2**0.5))
        x = x + h @ w["mlp.fc2.weight"].T + w["mlp.fc2.bias"]
    x = _norm(x, weights["norm.weight"], weights["norm.bias"], config.norm_eps)
    return x[0] @ weights["head.weight"].T + weights["head.bias"]


def _norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight + bias
