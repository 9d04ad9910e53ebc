"""Mixup and CutMix of two views, with the superpixel map pasted along.

CutMix pastes pixels of a guest into a host: a box, or whole superpixels of the guest (no straight border, no half
region). Host and guest pixels get their own regions, in proportion to their areas, so no region straddles the border
and there are exactly K. The target's share is the exact share of pixels. Mixup keeps the host's map; the host always
has the larger share.
"""

import math
import random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.superpixels import hierarchy

from .augment import FineView, View
from .config import MixConfig


def mix(
    host: FineView, guest: FineView, num_tokens: int | None, config: MixConfig, rng: random.Random
) -> tuple[View, float]:
    """The mixed view, and the host's share of the target (1.0 = not mixed this time)."""
    if rng.random() >= config.probability:
        return host.fit(num_tokens), 1.0
    blend = config.cutmix == 0 or (config.mixup > 0 and rng.random() < 0.5)
    share = _beta(config.mixup if blend else config.cutmix, rng)
    if blend:
        share = max(share, 1 - share)
        image = host.image * np.float32(share) + guest.image * np.float32(1 - share)
        return View((image + 0.5).astype(np.uint8), host.fit(num_tokens).map), share
    if config.cutmix_shape == "superpixels" and guest.fine is not None:
        mask = _superpixel_mask(guest, 1 - share, rng)
    else:
        mask = _box_mask(host, 1 - share, rng)
    return paste(host, guest, mask, num_tokens)


def paste(host: FineView, guest: FineView, mask: NDArray[np.bool_], num_tokens: int | None) -> tuple[View, float]:
    """Guest pixels where `mask` (at map resolution; at image resolution without maps) is True.

    Host unchanged with share 1.0 when one of the two would get no region. The map is uint8 or int16 as from `fit`.
    """
    large = _to_pixels(mask, host.image.shape[0])
    image = np.where(large[..., None], guest.image, host.image)
    share = 1.0 - float(large.mean())
    if host.fine is None or guest.fine is None or num_tokens is None:
        return View(image, None), share
    num_guest, inside = round(num_tokens * float(mask.mean())), int(mask.sum())
    num_guest = min(max(1, num_guest), num_tokens - 1, inside)
    num_host = num_tokens - num_guest
    if inside == 0 or num_guest < 1 or num_host > mask.size - inside:
        return host.fit(num_tokens), 1.0
    assert host.merges is not None and guest.merges is not None
    joined = np.empty(mask.shape, np.int64)
    # The pixels of each part in a row: merging needs no neighbourhood, it is stored.
    joined[~mask] = hierarchy.fit_warped(np.ascontiguousarray(host.fine[~mask][None]), host.merges, num_host)[0]
    inner = hierarchy.fit_warped(np.ascontiguousarray(guest.fine[mask][None]), guest.merges, num_guest)[0]
    joined[mask] = inner.astype(np.int64) + num_host
    return View(image, _in_raster_order(joined, num_tokens)), share


def _in_raster_order(regions: NDArray[np.int64], num_tokens: int) -> NDArray[Any]:
    first = np.unique(regions, return_index=True)[1]
    new_id = np.empty(num_tokens, np.uint8 if num_tokens <= 256 else np.int16)
    new_id[np.argsort(first)] = np.arange(num_tokens)
    return new_id[regions]


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
    regions = hierarchy.fit_warped(guest.fine, guest.merges, min(32, guest.fine.size))
    areas = np.bincount(regions.ravel())
    order = list(range(len(areas)))
    rng.shuffle(order)
    chosen, covered = [], 0
    for region in order:
        if covered + areas[region] <= share * regions.size:
            chosen.append(region)
            covered += areas[region]
    return np.isin(regions, chosen)


def _to_pixels(mask: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """The mask at image resolution, nearest at pixel centres."""
    if mask.shape[0] == side:
        return mask
    at = ((np.arange(side) + 0.5) / side * mask.shape[0]).astype(np.int64)
    return mask[at[:, None], at]
