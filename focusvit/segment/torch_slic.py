"""Batched SLIC in torch: the reference of the kernels in `triton_slic`, and what runs where these do not.

Fixed iterations, dense products, no value read back: the same code runs on any device. A pixel chooses among the
regions that start in its own cell of a uniform grid and in the cells around it (as gSLIC does), so the work does not
grow with K. Regions need not be connected: a pass that joins fragments is sequential, and pooling does not need it.
`pipeline.superpixels.slic` gives connected regions.
"""

import torch
from torch import Tensor
from torch.nn import functional

from focusvit.model.config import IMAGENET_MEAN, IMAGENET_STD
from focusvit.model.regions import exact, full_precision

from .cells import Layout, layout_on, map_dtype, map_size, spacing

_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_AT_ONCE = {"cpu": 8}  # images whose distances exist at the same time, so that they stay in a CPU's caches
_AT_ONCE_ELSEWHERE = 256


@torch.no_grad()
def torch_slic(
    images: Tensor, tokens: int, *, compactness: float = 15.0, iterations: int = 10, reduce: int = 2
) -> Tensor:
    """`slic.slic` in torch, on any device."""
    height, width = map_size(images, tokens, iterations, reduce)
    small = _reduced(images, reduce)
    features = _features(_smooth(small), compactness / spacing(tokens, height, width))
    layout = layout_on(images.device, tokens, height, width)
    at_once = _AT_ONCE.get(images.device.type, _AT_ONCE_ELSEWHERE)
    with full_precision(images):  # squares of distances in Lab reach 10,000
        if torch.compiler.is_compiling():  # the products run when nobody is inside any more
            features = exact(features)
        parts = [_assign(part, layout, iterations) for part in features.split(at_once)]
    return torch.cat(parts).view(-1, height, width).to(map_dtype(tokens))


def lab_of(images: Tensor, size: tuple[int, int]) -> Tensor:
    """CIE Lab (B, 3, h, w) of images as `slic` takes them, averaged to the size of their map."""
    small = _reduced(images, images.shape[-1] // size[1])
    with full_precision(images):
        return _lab(small)


def _reduced(images: Tensor, reduce: int) -> Tensor:
    unit = images.float() if images.is_floating_point() else images.float() / 255
    return functional.avg_pool2d(unit, reduce)


def _smooth(small: Tensor) -> Tensor:
    """(1, 2, 1) / 4 along y and x: fewer fragments than pixels as they are, borders sharper than after a box."""
    padded = functional.pad(small, (1, 1, 1, 1), mode="replicate")
    return functional.avg_pool2d(functional.avg_pool2d(padded, 2, 1), 2, 1)


def to_unit_range(
    images: Tensor, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD
) -> Tensor:
    """Normalised float images (B, 3, H, W) as RGB in [0, 1]; uint8 images stay as they are."""
    if not images.is_floating_point():
        return images
    # Numbers, not tensors: a tensor made on the host would have to be sent, and the host would wait for it.
    channels = [images[:, i].float() * std[i] + mean[i] for i in range(3)]
    return torch.stack(channels, 1).clamp(0, 1)


def _features(rgb: Tensor, position: float) -> Tensor:
    """(B, 5, P): CIE Lab and weighted (y, x) of every pixel."""
    height, width = rgb.shape[-2:]
    y = torch.arange(height, device=rgb.device, dtype=rgb.dtype)[:, None].expand(height, width)
    x = torch.arange(width, device=rgb.device, dtype=rgb.dtype)[None].expand(height, width)
    place = (torch.stack([y, x]) * position).expand(rgb.shape[0], -1, -1, -1)
    return torch.cat([_lab(rgb), place], 1).flatten(2)


def _lab(rgb: Tensor) -> Tensor:
    """sRGB in [0, 1] (B, 3, H, W) -> CIE Lab with white D65."""
    linear = torch.where(rgb > 0.04045, ((rgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    red, green, blue = linear.unbind(1)
    rows = [(r * red + g * green + b * blue) / (r + g + b) for r, g, b in _TO_XYZ]
    xyz = torch.stack(rows, 1)
    f = torch.where(xyz > 0.008856, xyz.clamp(min=1e-6) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def _assign(features: Tensor, layout: Layout, iterations: int) -> Tensor:
    """(B, 5, P) -> ids (B, P). Centres start as the means of the cells."""
    order, valid, back, near, into, _ = layout
    (tokens, num_near), batch = near.shape, features.shape[0]
    # The last channel is 1 at pixels and 0 at places without one: their sums and counts come from one product.
    pixels = functional.pad(features, (0, 0, 0, 1), value=1.0)[:, :, order] * valid
    pixels = pixels.view(batch, -1, tokens, order.shape[0] // tokens).permute(0, 2, 3, 1).contiguous()  # (B, K, m, 6)
    by_channel = pixels.transpose(2, 3)
    candidate = torch.arange(num_near, device=features.device)
    nothing = pixels.new_zeros(batch, 1, pixels.shape[-1])
    away = torch.where(valid > 0, 0.0, torch.inf).view(tokens, -1)
    sums = pixels.sum(2)
    for _ in range(iterations):
        centres = sums[..., :5] / sums[..., 5:]
        # |p - c|^2 without |p|^2, which is the same for all candidates of a pixel: one product with (-2 c, |c|^2).
        query = torch.cat([-2 * centres, centres.square().sum(2, keepdim=True)], 2)[:, near]  # (B, K, C, 6)
        distance = query @ by_channel
        best, chosen = distance.min(2)
        chosen = _pinned(distance[:, :, 0] - best + away, chosen)
        member = (chosen[:, :, None] == candidate[:, None]).to(pixels.dtype)
        parts = torch.cat([(member @ pixels).flatten(1, 2), nothing], 1)  # (B, K C + 1, 6)
        sums = parts[:, into].sum(2)
    labels = near.expand(batch, -1, -1).gather(2, chosen)
    return labels.flatten(1)[:, back]


def _pinned(excess: Tensor, chosen: Tensor) -> Tensor:
    """Every region keeps one pixel of its own start cell, so none can be empty: the one that loses least by it.

    `excess` (B, K, m) is how much further a pixel is from its own cell's centre than from its best.
    """
    pin = excess.argmin(2, keepdim=True)
    return chosen.scatter(2, pin, 0)
