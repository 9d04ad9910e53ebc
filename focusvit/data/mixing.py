"""Mixup and CutMix of two samples: what is drawn, and the superpixel map of the mixed image.

CutMix pastes pixels of a guest into a host: a box, or whole superpixels of the guest (no straight border, no half
region). Host and guest pixels get their own regions, in proportion to their areas, so no region straddles the border
and there are exactly K. The target's share is the exact share of pixels. Mixup keeps the host's map; the host always
has the larger share. The pixels themselves are mixed on the device (`pixels`), after the colours of both.
"""

import math
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.superpixels import hierarchy

from .augment import FineView
from .config import MixConfig
from .draws import BLEND_ONE

_REGIONS = 32  # of the guest, of which CutMix by superpixels pastes some


@dataclass(frozen=True)
class Mix:
    """How a sample is mixed with the next one. Neither `weight` nor `mask`: not at all."""

    map: NDArray[Any] | None
    """(Hm, Wm) with exactly the wanted regions"""
    share: float = 1.0
    """of the host in the target"""
    weight: int | None = None
    """of the host's pixels, in 1 / BLEND_ONE"""
    mask: NDArray[np.bool_] | None = None
    """True where the guest's pixel is taken; at map resolution, at image resolution without maps"""


def mix(host: FineView, guest: FineView, num_tokens: int | None, config: MixConfig, rng: random.Random) -> Mix:
    """Draw how `host` and `guest` are mixed, and make the map of the mixed image."""
    if rng.random() >= config.probability:
        return Mix(host.fit(num_tokens).map)
    blend = config.cutmix == 0 or (config.mixup > 0 and rng.random() < 0.5)
    share = _beta(config.mixup if blend else config.cutmix, rng)
    if blend:
        weight = round(max(share, 1 - share) * BLEND_ONE)
        return Mix(host.fit(num_tokens).map, weight / BLEND_ONE, weight)
    if config.cutmix_shape == "superpixels" and guest.fine is not None:
        mask = _superpixel_mask(guest, 1 - share, rng)
    else:
        mask = _box_mask(host, 1 - share, rng)
    return paste(host, guest, mask, num_tokens)


def paste(host: FineView, guest: FineView, mask: NDArray[np.bool_], num_tokens: int | None) -> Mix:
    """Guest pixels where `mask` is True. Host unchanged with share 1.0 when one of the two would get no region.

    The map is uint8 or int16 as from `fit`.
    """
    share = 1.0 - _pixel_share(mask, host.image.shape[0])
    if host.fine is None or guest.fine is None or num_tokens is None:
        return Mix(None, share, None, mask)
    inside = int(np.count_nonzero(mask))
    num_guest = min(max(1, round(num_tokens * inside / mask.size)), num_tokens - 1, inside)
    if inside == 0 or num_guest < 1 or num_tokens - num_guest > mask.size - inside:
        return Mix(host.fit(num_tokens).map)
    assert host.merges is not None and guest.merges is not None
    counts = (num_tokens - num_guest, num_guest)
    regions = hierarchy.fit_pasted(host.fine, host.merges, guest.fine, guest.merges, mask, counts)
    return Mix(regions, share, None, mask)


def _beta(alpha: float, rng: random.Random) -> float:
    return rng.betavariate(alpha, alpha)


def _box_mask(host: FineView, share: float, rng: random.Random) -> NDArray[np.bool_]:
    """A box that holds `share` of the area before the border cuts it, with a random centre (as in the paper)."""
    side = host.image.shape[0] if host.fine is None else host.fine.shape[0]
    half = side * math.sqrt(share) / 2
    y, x = rng.uniform(0, side), rng.uniform(0, side)
    y0, y1, x0, x1 = (round(min(max(v, 0), side)) for v in (y - half, y + half, x - half, x + half))
    mask = np.zeros((side, side), np.bool_)
    mask[y0:y1, x0:x1] = True
    return mask


def _superpixel_mask(guest: FineView, share: float, rng: random.Random) -> NDArray[np.bool_]:
    """Whole regions of the guest (cut to 32) in random order, as many as fit into `share` of the area."""
    assert guest.fine is not None and guest.merges is not None
    regions = hierarchy.fit_warped(guest.fine, guest.merges, min(_REGIONS, guest.fine.size))
    areas = np.bincount(regions.ravel()).tolist()
    order = list(range(len(areas)))
    rng.shuffle(order)
    limit, covered, chosen = share * regions.size, 0, np.zeros(len(areas), np.bool_)
    for region in order:
        if covered + areas[region] <= limit:
            chosen[region] = True
            covered += areas[region]
    return chosen.take(regions)


def _pixel_share(mask: NDArray[np.bool_], side: int) -> float:
    """Share of the image's pixels that the enlarged mask covers, exactly."""
    if mask.shape[0] == side:
        return float(mask.mean())
    at = (np.arange(side) * 2 + 1) * mask.shape[0] // (2 * side)  # as `pixels` enlarges it
    times = np.bincount(at, minlength=mask.shape[0]).astype(np.float32)
    return float(times @ (mask @ times)) / side**2
