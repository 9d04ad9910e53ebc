"""What a model looks at, as numbers: every layer's attention as shares of patches or regions, and attention rollout."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from focusvit.model.model import FocusViT

Place = Literal["patches", "regions"]


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Where one block looks: the class token of the model, or all its rows in the mean where there is none."""

    name: str
    shares: np.ndarray
    """float (N,) over patches in raster order, or (K,) over regions; sums to 1 without what the class token keeps"""
    over: Place


def layers(model: FocusViT, seen: dict[str, Any]) -> list[Layer]:
    """One `Layer` per block, of the first image of `forward_intermediates`; heads in the mean.

    Attention to latents is handed on to what they were pooled from. With token merging only the blocks before the first
    merge are given: later ones see groups of patches.
    """
    first, pooled, found = model.num_class_tokens, "overlap" in seen, []
    for number, (stage, rows) in enumerate(_blocks(model, seen)):
        if stage == "latents":
            rows = rows @ _with_first(_array(seen["latent_weights"]), first)
        row = rows[0, first:] if first else rows.mean(0)
        over: Place = "regions" if pooled and stage != "patches" else "patches"
        found.append(Layer(name=f"block {number + 1}, {stage}", shares=row / max(row.sum(), 1e-12), over=over))
    return found


def latent_shares(seen: dict[str, Any]) -> np.ndarray | None:
    """float (M, K): which regions each latent is pooled from; None for a model without latents."""
    weights = seen.get("latent_weights")
    return None if weights is None else _array(weights)


def last_read(seen: dict[str, Any]) -> np.ndarray | None:
    """float (B, first + M, K): which regions class token and latents read in the last cross-attention, heads in the
    mean; None for a model without reads.
    """
    return seen["reads"][-1].detach().double().mean(1).cpu().numpy() if seen["reads"] else None


def rollout(model: FocusViT, seen: dict[str, Any]) -> np.ndarray | None:
    """float (N,): shares of patches in what the head reads, by attention rollout (Abnar and Zuidema 2020): layers are
    multiplied, each half attention and half identity for its residual; pooling and reads are layers too. None with
    token merging.
    """
    config, first = model.config, model.num_class_tokens
    if config.merges:
        return None
    flow, before = np.eye(first + config.num_patches), "patches"
    num_latent_blocks = config.trunk_depths[1]
    reads = {i * num_latent_blocks // config.num_reads: _array(read).mean(0) for i, read in enumerate(seen["reads"])}
    tokens, latent_block = flow[first:], 0
    for stage, rows in _blocks(model, seen):
        if before == "patches" and stage != "patches" and "overlap" in seen:
            overlap = _array(seen["overlap"])
            flow = _with_first(overlap / overlap.sum(1, keepdims=True).clip(1e-12), first) @ flow
        if stage == "latents":
            if before != "latents":
                tokens = flow[first:]
                flow = _with_first(_array(seen["latent_weights"]), first) @ flow
            if latent_block in reads:
                flow = 0.5 * flow + 0.5 * reads[latent_block] @ tokens
            latent_block += 1
        flow = 0.5 * flow + 0.5 * rows @ flow
        before = stage
    out = flow[0, first:] if first else flow.mean(0)
    return out / out.sum()


def _blocks(model: FocusViT, seen: dict[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """(stage, rows) of every block: what asks (patches, tokens or latents), and how much each row takes of each row of
    the same stage, class token first; heads in the mean.
    """
    config, first = model.config, model.num_class_tokens
    trace = iter([_array(part).mean(0) for part in seen["attention"]])
    up = down = None  # from superpixels to the tokens of a further level, and back
    for block in range(config.depth):
        rows = next(trace)
        if block in seen.get("levels", {}):
            weights = _array(seen["levels"][block])
            member = (weights > 0).astype(float)
            up, down = (weights, member) if up is None or down is None else (weights @ up, member @ down)
        if block < config.grid_depth:
            yield "patches", rows
        elif config.merges:
            if rows.shape[1] != first + config.num_patches:
                return
            yield "patches", rows
        elif block >= config.depth - config.trunk_depths[1]:
            yield "latents", rows
        else:
            if config.trunk == "kv_pool":
                rows = rows @ _with_first(_array(seen["latent_weights"]), first)
            if config.trunk == "gather":
                rows = next(trace) @ rows  # tokens read latents, which gathered from the tokens
            if up is not None and down is not None:
                rows = _with_first(down.T, first) @ rows @ _with_first(up, first)
            yield "patches" if config.tokens is None else "tokens", rows


def _with_first(rows: np.ndarray, first: int) -> np.ndarray:
    """`rows` for the others, and the class token for itself."""
    whole = np.zeros((rows.shape[0] + first, rows.shape[1] + first))
    whole[:first, :first] = np.eye(first)
    whole[first:, first:] = rows
    return whole


def _array(part: Any) -> np.ndarray:
    """The first image of a batch as float64."""
    return part[0].detach().double().cpu().numpy()
