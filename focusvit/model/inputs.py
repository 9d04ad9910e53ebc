"""What may enter the model. `check_shapes` runs in every forward, `check_values` at the boundary only."""

from typing import Protocol

import torch
from torch import Tensor


class TakesImages(Protocol):
    """What a model's config says of its input: `FocusViTConfig`, or that of a host of another library."""

    @property
    def tokens(self) -> int | None: ...
    @property
    def partition(self) -> str: ...
    @property
    def allow_empty(self) -> bool: ...
    @property
    def image_size(self) -> tuple[int, int]: ...
    @property
    def grid(self) -> tuple[int, int]: ...
    @property
    def num_patches(self) -> int: ...
    @property
    def needs_maps(self) -> bool: ...


def check_shapes(config: TakesImages, images: Tensor, maps: Tensor | None, num_tokens: int | None) -> int | None:
    """The number of tokens of this call, None for a plain ViT. Costs next to nothing, and no wait on a GPU.

    Raises:
        ValueError: naming what was seen and what the model takes; on a CPU also for maps of another number of regions.
    """
    for name, given in (("images", images), ("maps", maps)):
        if given is not None and not isinstance(given, Tensor):
            raise ValueError(
                f"{name} is {_kind(given)}; this model takes torch tensors: stack arrays uint8 (H, W, 3) of RGB and "
                "move channels first, torch.from_numpy(np.stack([np.asarray(image.convert('RGB')) for image in "
                "photos])).permute(0, 3, 1, 2), and maps as integers (B, Hm, Wm)"
            )
    if images.ndim != 4 or tuple(images.shape[1:]) != (3, *config.image_size):
        raise ValueError(f"images have shape {tuple(images.shape)}; this model takes (B, 3, *{config.image_size})")
    if config.tokens is None and num_tokens is not None:
        raise ValueError(f"num_tokens is {num_tokens} and model.tokens is None: a plain ViT has no token budget")
    if config.needs_maps != (maps is not None):
        raise ValueError(
            f"maps are {'missing' if maps is None else 'given'}; a model with tokens {config.tokens} and partition "
            f"'{config.partition}' {'needs' if config.needs_maps else 'takes no'} maps (see config.needs_maps)"
        )
    num_tokens = config.tokens if num_tokens is None else num_tokens
    if num_tokens is not None and num_tokens < 1:
        raise ValueError(f"num_tokens is {num_tokens}; it must be at least 1")
    if maps is not None and num_tokens is not None:
        _check_map_shape(maps, images, config.grid)
        if maps.device.type == "cpu" and not torch.compiler.is_compiling():  # a GPU would have to be waited for
            _check_budget(maps, num_tokens, config.allow_empty)
    return num_tokens


def _kind(value: object) -> str:
    found = type(value)
    library = "" if found.__module__ == "builtins" else f"{found.__module__.split('.')[0]} "
    return f"a {library}{found.__name__}"


def _check_map_shape(maps: Tensor, images: Tensor, grid: tuple[int, int]) -> None:
    rows, columns = grid
    good = maps.ndim == 3 and maps.shape[0] == images.shape[0] and _is_integer(maps)
    if not good or 0 in maps.shape or maps.shape[1] % rows or maps.shape[2] % columns:
        raise ValueError(
            f"maps have shape {tuple(maps.shape)} and dtype {maps.dtype}; images {tuple(images.shape)} need "
            f"integers (B, Hm, Wm) with Hm a multiple of {rows} and Wm of {columns} (the patch grid)"
        )


def _is_integer(x: Tensor) -> bool:
    return not (x.is_floating_point() or x.is_complex() or x.dtype == torch.bool)


def _check_budget(maps: Tensor, num_tokens: int, allow_empty: bool) -> None:
    """The highest id of a map says how many regions it has, unless some are absent (`check_maps` looks for those)."""
    counts = [highest + 1 for highest in maps.amax((1, 2)).tolist()]
    few, many = min(counts), max(counts)
    if int(maps.amin()) < 0:
        raise ValueError(f"the maps hold ids from {int(maps.amin())} on; ids of regions begin with 0")
    if many > num_tokens or (few < num_tokens and not allow_empty):
        fix = f"pass num_tokens={many}"
        if few < many and not allow_empty:
            fix = f"fit every map to one number of regions, or set model.allow_empty and {fix}"
        found = f"{few}" if few == many else f"{few} to {many}"
        raise ValueError(f"the maps hold {found} regions and this call is for {num_tokens} tokens: {fix}")


def check_values(
    config: TakesImages, images: Tensor, maps: Tensor | None = None, num_tokens: int | None = None
) -> None:
    """Boundary check of a batch (loader, predict): shapes, finite pixels, ids in range and each present. Reads values.

    Raises:
        ValueError: naming the first image at fault, what it holds, and the fix.
    """
    if maps is not None and isinstance(maps, Tensor) and (num_tokens or config.tokens):
        check_maps(maps, num_tokens or config.tokens or 0, allow_empty=config.allow_empty)
    check_shapes(config, images, maps, num_tokens)
    if images.is_floating_point():
        finite = images.isfinite().flatten(1).all(1)
        if not finite.all():
            first = int((~finite).nonzero()[0])
            raise ValueError(
                f"image {first} of the batch holds NaN or infinite pixels; decode it again, or leave it out"
            )


def check_maps(maps: Tensor, num_tokens: int, *, allow_empty: bool = False) -> None:
    """Boundary check of superpixel maps (B, Hm, Wm): ids 0..num_tokens-1, each present. Reads values: not for forward.

    Raises:
        ValueError: naming the first image and the ids that are out of range or absent.
    """
    if maps.ndim != 3 or not _is_integer(maps) or 0 in maps.shape:
        raise ValueError(
            f"maps have shape {tuple(maps.shape)} and dtype {maps.dtype}; they must be (B, H, W) of integers"
        )
    ids = maps.flatten(1).long()
    for i, (low, high) in enumerate(zip(ids.amin(1).tolist(), ids.amax(1).tolist())):
        if low < 0 or high >= num_tokens:
            raise ValueError(
                f"the map of image {i} holds ids {low}..{high}; {num_tokens} tokens allow 0..{num_tokens - 1}: pass "
                f"num_tokens={high + 1} where every map has that many regions"
            )
    counts = torch.zeros(len(ids), num_tokens, dtype=torch.long, device=ids.device)
    lacks = (counts.scatter_add_(1, ids, torch.ones_like(ids)) == 0).cpu()
    if lacks.any() and not allow_empty:
        first = int(lacks.any(1).nonzero()[0])
        absent = lacks[first].nonzero().flatten().tolist()
        raise ValueError(
            f"the map of image {first} holds {num_tokens - len(absent)} regions for {num_tokens} tokens; absent: "
            f"{absent[:5]}. Fit the map to exactly {num_tokens} regions, or set model.allow_empty"
        )
