"""Colours, erasing and mixing of a whole batch on its own device, in plain torch.

The loader draws (`draws`, `mixing`), this does. All arithmetic is on whole numbers that float32 holds exactly, so the
same draws give the same bits on a CPU and on a GPU, for any split of a global batch. No step waits for the device:
how many images a step concerns is known on the host.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from .draws import BLEND_ONE, JITTER_ONE, TAP_ONE

_AT_A_TIME = 8  # images in float32: 5 MB at 224 px, near the size of a CPU's caches; a GPU takes more of them
_AT_A_TIME_ON_GPU = 64
_LUMA, _LUMA_BITS = (9798.0, 19235.0, 3735.0), 15  # OpenCV's weights of red, green and blue


@dataclass(frozen=True, kw_only=True)
class Sorted:
    """Images by what is to be done to them, so that each kind is one slice."""

    order: Tensor
    """int64 (n,): the images, kind by kind"""
    back: Tensor
    """int64 (n,): where each image stands in that order"""
    sizes: tuple[int, ...]
    """images of each kind; the first kind is left as it is"""

    def slices(self, kind: int, most: int) -> Iterator[slice]:
        """The slices of this kind in the order, of at most `most` images."""
        start, stop = sum(self.sizes[:kind]), sum(self.sizes[: kind + 1])
        yield from (slice(at, min(at + most, stop)) for at in range(start, stop, most))


@dataclass(frozen=True, kw_only=True)
class PixelWork:
    """What is still to be done to the images of a batch. N = B, or B + 1 with mixing: image i is mixed with i + 1.

    after     uint8 (1, 3, H, W), the image at position B; None without mixing
    colours   the N images: left, gray, solarized, blurred
    taps      float32 (n, taps), whole numbers, of those to blur in their order
    jitter    float32 (N, 3): brightness, contrast, saturation; None = no jitter
    boxes     (image, y0, x0, y1, x1) of each erased box
    noise     uint8 (n,): the pixels of these boxes, one after another
    mixes     the B images: left, blended, pasted
    weights   float32 (n,): the host's weight in 1 / BLEND_ONE, of those to blend in their order
    masks     bool (n, Hm, Wm): True = the pixel of the next image, of those to paste in their order
    """

    after: Tensor | None
    colours: Sorted
    taps: Tensor
    jitter: Tensor | None
    boxes: tuple[tuple[int, int, int, int, int], ...]
    noise: Tensor
    mixes: Sorted
    weights: Tensor
    masks: Tensor


Work = TypeVar("Work", PixelWork, Sorted)


def map_tensors(work: Work, change: Callable[[Tensor], Tensor]) -> Work:
    """`work` with every tensor in it changed."""
    changed: dict[str, Any] = {}
    for name in (f.name for f in fields(work)):
        value = getattr(work, name)
        if isinstance(value, Tensor):
            changed[name] = change(value)
        elif isinstance(value, Sorted):
            changed[name] = map_tensors(value, change)
    return replace(work, **changed)


@torch.no_grad()
def finish(images: Tensor, work: PixelWork) -> Tensor:
    """uint8 (B, 3, H, W): `images`, of that shape, with the work done. The argument is left as it is."""
    most = _AT_A_TIME if images.device.type == "cpu" else _AT_A_TIME_ON_GPU
    done = _coloured(images if work.after is None else torch.cat([images, work.after]), work, most)
    if work.jitter is not None:
        for start in range(0, len(done), most):
            at = slice(start, start + most)
            done[at] = _jittered(done[at].float(), work.jitter[at])
    start = 0
    for image, y0, x0, y1, x1 in work.boxes:
        stop = start + 3 * (y1 - y0) * (x1 - x0)
        done[image, :, y0:y1, x0:x1] = work.noise[start:stop].view(3, y1 - y0, x1 - x0)
        start = stop
    return done if work.after is None else _mixed(done, work, most)


def _coloured(images: Tensor, work: PixelWork, most: int) -> Tensor:
    """3-augment, in new memory."""
    colours = work.colours
    if sum(colours.sizes[1:]) == 0:
        return images.clone(memory_format=torch.contiguous_format)
    done = images.contiguous().index_select(0, colours.order)
    first = len(images) - colours.sizes[3]
    for at in colours.slices(1, most):
        done[at] = _luma(done[at].float()).to(torch.uint8)
    for at in colours.slices(2, most):
        done[at] = torch.minimum(done[at], 255 - done[at])  # the bright half inverted
    for at in colours.slices(3, most):
        done[at] = _blurred(done[at], work.taps[at.start - first : at.stop - first])
    return done.index_select(0, colours.back)


def _mixed(images: Tensor, work: PixelWork, most: int) -> Tensor:
    """The first B of B + 1 images, each mixed with the next one."""
    mixes = work.mixes
    hosts, guests = images.index_select(0, mixes.order), images.index_select(0, mixes.order + 1)
    left, first = mixes.sizes[0], mixes.sizes[0] + mixes.sizes[1]
    for at in mixes.slices(1, most):
        hosts[at] = _blended(hosts[at], guests[at], work.weights[at.start - left : at.stop - left])
    for at in mixes.slices(2, most):
        masks = _enlarged(work.masks[at.start - first : at.stop - first], images.shape[2], images.shape[3])
        bits = masks.to(torch.uint8).mul_(255)[:, None]
        hosts[at] ^= (hosts[at] ^ guests[at]) & bits  # torch.where takes ten times as long on a CPU
    return hosts.index_select(0, mixes.back)


def _luma(images: Tensor) -> Tensor:
    """float32 (n, 1, H, W), whole numbers: OpenCV's gray of float32 (n, 3, H, W)."""
    red, green, blue = (images[:, c : c + 1] * weight for c, weight in enumerate(_LUMA))
    return red.add_(green).add_(blue).add_(1 << _LUMA_BITS - 1).mul_(2.0**-_LUMA_BITS).floor_()


def _blurred(images: Tensor, taps: Tensor) -> Tensor:
    """Rows, then columns, each image with its own taps; mirrored at the border."""
    height, width = images.shape[2:]
    radius = taps.shape[1] // 2
    padded = functional.pad(images.float(), (radius,) * 4, mode="reflect")
    weights = taps[:, :, None, None, None]
    rows = torch.zeros_like(padded[:, :, :height])
    for i in range(2 * radius + 1):
        rows.addcmul_(padded[:, :, i : i + height], weights[:, i])
    both = torch.full_like(rows[..., :width], TAP_ONE**2 / 2)
    for i in range(2 * radius + 1):
        both.addcmul_(rows[..., i : i + width], weights[:, i])
    return both.mul_(TAP_ONE**-2).floor_().to(torch.uint8)


def _jittered(images: Tensor, factors: Tensor) -> Tensor:
    """uint8: brightness, contrast (around the mean gray) and saturation in one step.

    All three are blends, with black, with the image's mean gray and with a pixel's own gray. Saturation leaves gray as
    it is and brightness scales it, so without rounding in between they commute: there is no order to draw.
    """
    brightness, contrast, saturation = factors.double().unbind(1)
    gray = _luma(images)
    mean = gray.sum((1, 2, 3), dtype=torch.float64) / gray[0].numel()  # a sum of whole numbers is exact in any order
    whole = (brightness * contrast * JITTER_ONE).round()
    own = (brightness * contrast * saturation * JITTER_ONE).round()
    offset = (brightness * (1 - contrast) * mean * JITTER_ONE).round() + JITTER_ONE // 2
    own, rest, offset = (value.float()[:, None, None, None] for value in (own, whole - own, offset))
    gray.mul_(rest).add_(offset)
    return images.mul_(own).add_(gray).mul_(1 / JITTER_ONE).floor_().clamp_(0, 255).to(torch.uint8)


def _blended(hosts: Tensor, guests: Tensor, weights: Tensor) -> Tensor:
    """uint8: mixup, rounded. 8 bits of colour and 15 of weight are exact in float32."""
    share = weights[:, None, None, None]
    total = hosts.float().mul_(share).add_(guests.float().mul_(BLEND_ONE - share))
    return total.add_(BLEND_ONE / 2).mul_(1 / BLEND_ONE).floor_().to(torch.uint8)


def _enlarged(masks: Tensor, height: int, width: int) -> Tensor:
    """bool (n, H, W) of (n, Hm, Wm): nearest at pixel centres, as `mixing` counts the shares."""
    if masks.shape[1:] == (height, width):
        return masks
    rows, columns = (
        (torch.arange(size, device=masks.device) * 2 + 1) * small // (2 * size)
        for size, small in zip((height, width), masks.shape[1:])
    )
    return masks.index_select(1, rows).index_select(2, columns)
