"""Features back to pixels: what a dense head reads from superpixels, with exact borders and with gradients."""

from torch import Tensor

from focusvit.model.regions import overlap_matrix


def unpool(tokens: Tensor, maps: Tensor) -> Tensor:
    """(B, K, D) and maps (B, Hm, Wm), ids 0..K-1 -> (B, D, Hm, Wm): every pixel gets the vector of its region.

    Raises ValueError for a map of another batch.
    """
    if tokens.ndim != 3 or maps.ndim != 3 or len(tokens) != len(maps):
        raise ValueError(f"tokens {tuple(tokens.shape)} and maps {tuple(maps.shape)} must be (B, K, D) and (B, Hm, Wm)")
    rows = maps.flatten(1).long()[..., None].expand(-1, -1, tokens.shape[2])
    return tokens.gather(1, rows).transpose(1, 2).unflatten(2, maps.shape[1:])


def superpixel_readout(features: Tensor, maps: Tensor, num_tokens: int) -> Tensor:
    """Patch features averaged over superpixels and painted on their pixels: (B, D, Hm, Wm).

    A dense head on this instead of on features enlarged bilinearly has borders where the image has them. A head that
    looks at one place at a time is cheaper before painting: `unpool(head(superpixel_means(...)), maps)`.

    Takes and raises what `superpixel_means` does.
    """
    return unpool(superpixel_means(features, maps, num_tokens), maps)


def superpixel_means(features: Tensor, maps: Tensor, num_tokens: int) -> Tensor:
    """Patch features averaged over superpixels: (B, num_tokens, D).

    features: (B, N, D) patches in raster order of a square grid, without class token or registers, or (B, D, h, w). The
    sides of `maps` (B, Hm, Wm), ids 0..num_tokens-1, are multiples of the patch grid.

    Raises ValueError for shapes that do not belong together.
    """
    if features.ndim == 4:
        grid = (features.shape[2], features.shape[3])
        features = features.flatten(2).transpose(1, 2)
    else:
        side = round(features.shape[1] ** 0.5)
        grid = (side, side)
    if len(features) != len(maps) or grid[0] * grid[1] != features.shape[1]:
        raise ValueError(
            f"features are {tuple(features.shape)} and maps {tuple(maps.shape)}: give (B, N, D) of a square grid "
            f"without class token and registers, or (B, D, h, w), and the maps of the same images"
        )
    if maps.ndim != 3 or maps.shape[1] % grid[0] or maps.shape[2] % grid[1]:
        raise ValueError(f"maps are {tuple(maps.shape)}; their sides must be multiples of the patch grid {grid}")
    overlap = overlap_matrix(maps, grid, num_tokens)
    weights = overlap / overlap.sum(2, keepdim=True).clamp(min=1e-6)
    return weights.to(features.dtype) @ features
