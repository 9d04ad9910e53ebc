"""What `--patch` says of a host, as the words of a command line; and its controls in the same words."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from pipeline.errors import UsageError, did_you_mean

from .host_config import HostConfig
from .levels import levels_of


def with_patch(config: HostConfig, settings: Sequence[str]) -> HostConfig:
    """The config with what `--patch` says: tokens=196 (0.5 = half of the patches; 2:196,5:100 = levels by block),
    depth=6 (the block before which patches are pooled), merge=colour, latents=16, image_px=336. Nothing said leaves it
    as it is; tokens=all pools nothing.

    Raises UsageError for other words, and for values that the host cannot take.
    """
    known = {"tokens", "depth", "merge", "latents", "image_px"}
    said = {}
    for text in settings:
        name, _, value = text.partition("=")
        if name not in known or not value:
            raise UsageError(
                f"--patch {text}: write name=value with {', '.join(sorted(known))}.{did_you_mean(name, sorted(known))}"
            )
        said[name] = value
    if not said:
        return config
    try:
        changed = dataclasses.replace(
            config, image_px=int(said.get("image_px", config.image_px)), tokens=None, then=(), latents=None
        )
        if "tokens" not in said:
            if said.keys() - {"image_px"}:
                raise ValueError("say how many tokens are left, such as tokens=0.5 or tokens=196")
            return changed
        if said["tokens"] == "all":
            return changed
        merge: Any = said.get("merge", "keys")
        levels = _levels(said["tokens"], said.get("depth"), changed, merge)
        return dataclasses.replace(
            changed, tokens=levels[0][1], pool_before=levels[0][0], then=levels[1:], merge=merge,
            latents=int(said["latents"]) if "latents" in said else None,
        )  # fmt: skip
    except (ValueError, TypeError) as error:
        raise UsageError(f"--patch {' '.join(settings)}: {error}.") from None


def _levels(text: str, depth: str | None, config: HostConfig, merge: str) -> tuple[tuple[int, int], ...]:
    def budget(value: str) -> int | float:
        return float(value) if "." in value else int(value)

    if ":" in text:
        pairs = [part.split(":") for part in text.split(",")]
        if any(len(pair) != 2 for pair in pairs):
            raise ValueError(f"tokens is '{text}': write levels as block:tokens with commas, such as 2:196,5:100")
        found = levels_of(
            {int(block): budget(tokens) for block, tokens in pairs}, None if depth is None else int(depth), config.depth
        )
    else:
        start = 0 if merge == "tome" and depth is None else None if depth is None else int(depth)
        found = levels_of(budget(text), start, config.depth)
    return tuple(
        (block, tokens if isinstance(tokens, int) else max(1, round(tokens * config.num_patches)))
        for block, tokens in found
    )


def controls_of(config: HostConfig) -> dict[str, tuple[str, ...]]:
    """What `with_patch` is told so that the same host spends as many tokens a block, on average, in other ways: a
    uniform grid, token merging, fewer pixels; and all patches, which is what nothing spent less gives.

    Token merging ends at the last number of tokens where merging in every block cannot spend as few.
    """
    if config.tokens is None:
        return {}
    px = f"image_px={config.image_px}"
    found: dict[str, tuple[str, ...]] = {"all patches": ("tokens=all", px)}
    if config.merge == "readout":
        return found
    mean, blocks, patches = config.mean_tokens, config.depth, config.num_patches
    found["grid"] = ("tokens=" + ",".join(f"{block}:{tokens}" for block, tokens in config.levels), "merge=grid", px)
    last = round(patches - 2 * (patches - mean) * blocks / (blocks + 1))
    last = min(max(last, config.levels[-1][1]), patches - 1)
    found["token merging"] = (f"tokens={last}", "merge=tome", px)
    found["fewer pixels"] = ("tokens=all", f"image_px={max(1, round(mean**0.5)) * config.patch_px}")
    return found
