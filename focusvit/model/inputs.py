"""What may enter the model. `check_shapes` runs in every forward, `check_values` at the boundary only."""

import torch
from torch import Tensor

from .config import FocusViTConfig


def check_shapes(
    config: FocusViTConfig,
    images: Tensor,
    maps: Tensor | None,
    num_tokens: int | None,
    coarse_maps: Tensor | None = None,
) -> int | None:
    """The number of tokens of this call, None for a plain ViT. Costs nothing on any device.

    Raises:
        ValueError: naming the shape seen and the one the model takes.
    """
    if images.ndim != 4 or tuple(images.shape[1:]) != (3, *config.image_size):
        raise ValueError(f"images have shape {tuple(images.shape)}; this model takes (B, 3, *{config.image_size})")
    if config.tokens is None and num_tokens is not None:
        raise ValueError(f"num_tokens is {num_tokens} and model.tokens is None: a plain ViT has no token budget")
    if config.needs_maps != (maps is not None):
        raise ValueError(
            f"maps are {'missing' if maps is None else 'given'}; a model with tokens {config.tokens} and partition "
            f"'{config.partition}' {'needs' if config.needs_maps else 'takes no'} maps (see config.needs_maps)"
        )
    for name, found in (("maps", maps), ("coarse_maps", coarse_maps)):
        if found is not None:
            _check_map_shape(name, found, images, config.grid)
    takes_coarse = config.latent_start == "coarse" and config.has_latents
    if (coarse_maps is not None) != takes_coarse:
        raise ValueError(
            f"coarse_maps are {'missing' if coarse_maps is None else 'given'} and model.latent_start is "
            f"'{config.latent_start}', trunk '{config.trunk}'; only latents that start from a coarse cut need them"
        )
    if coarse_maps is not None and maps is not None and coarse_maps.shape != maps.shape:
        raise ValueError(f"coarse_maps {tuple(coarse_maps.shape)} and maps {tuple(maps.shape)} must have one shape")
    num_tokens = config.tokens if num_tokens is None else num_tokens
    if num_tokens is not None and num_tokens < 1:
        raise ValueError(f"num_tokens is {num_tokens}; it must be at least 1")
    return num_tokens


def _check_map_shape(name: str, found: Tensor, images: Tensor, grid: tuple[int, int]) -> None:
    rows, columns = grid
    good = found.ndim == 3 and found.shape[0] == images.shape[0] and _is_integer(found)
    if not good or 0 in found.shape or found.shape[1] % rows or found.shape[2] % columns:
        raise ValueError(
            f"{name} have shape {tuple(found.shape)} and dtype {found.dtype}; images {tuple(images.shape)} need "
            f"integers (B, Hm, Wm) with Hm a multiple of {rows} and Wm of {columns} (the patch grid)"
        )


def _is_integer(x: Tensor) -> bool:
    return not (x.is_floating_point() or x.is_complex() or x.dtype == torch.bool)


def check_values(
    config: FocusViTConfig,
    images: Tensor,
    maps: Tensor | None = None,
    num_tokens: int | None = None,
    coarse_maps: Tensor | None = None,
) -> None:
    """Boundary check of a batch (loader, predict): shapes, finite pixels, ids in range and each present. Reads values.

    Raises:
        ValueError: naming the first image at fault, what it holds, and the fix.
    """
    num_tokens = check_shapes(config, images, maps, num_tokens, coarse_maps)
    if images.is_floating_point():
        finite = images.isfinite().flatten(1).all(1)
        if not finite.all():
            first = int((~finite).nonzero()[0])
            raise ValueError(
                f"image {first} of the batch holds NaN or infinite pixels; decode it again, or leave it out"
            )
    if maps is not None and num_tokens is not None:
        check_maps(maps, num_tokens, allow_empty=config.allow_empty)
    if coarse_maps is not None:
        try:
            check_maps(coarse_maps, config.num_latents, allow_empty=True)
        except ValueError as error:
            raise ValueError(f"coarse_maps: {error}") from None


def check_maps(maps: Tensor, num_tokens: int, *, allow_empty: bool = False) -> None:
    """Boundary check of superpixel maps (B, Hm, Wm): ids 0..num_tokens-1, each present. Reads values: not for forward.

    Raises:
        ValueError: naming the first image and the ids that are out of range or absent.
    """
    if maps.ndim != 3 or not _is_integer(maps):
        raise ValueError(
            f"maps have shape {tuple(maps.shape)} and dtype {maps.dtype}; they must be (B, H, W) of integers"
        )
    for i, ids in enumerate(maps.flatten(1)):
        present = torch.unique(ids).tolist()
        if not present or present[0] < 0 or present[-1] >= num_tokens:
            seen = f"{present[0]}..{present[-1]}" if present else "nothing"
            raise ValueError(f"the map of image {i} holds ids {seen}; {num_tokens} tokens allow 0..{num_tokens - 1}")
        if len(present) < num_tokens and not allow_empty:
            absent = sorted(set(range(num_tokens)) - set(present))
            raise ValueError(
                f"the map of image {i} holds {len(present)} regions for {num_tokens} tokens; absent: {absent[:5]}. "
                f"Fit the map to exactly {num_tokens} regions, or set model.allow_empty"
            )
