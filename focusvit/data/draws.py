"""What is drawn for the pixels of one sample: its colours and its erased box. Drawn in the loader, done on the device.

Everything is whole numbers, so that the same pixels come out on any device, in any batch, on any rank: `pixels`
does the arithmetic. No torch here; a loader worker draws with the generator of the sample.
"""

import math
import random
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from .config import DataConfig

DRAWS = 2
"""Raised when the same seed gives other pixels: a run of an older release is then not continued with other draws."""

KINDS = ("gray", "solarize", "blur")
TAP_ONE = 256
"""Sum of the taps of a blur: two passes of 8 bits and 8 bits of colour are whole numbers that float32 holds exactly."""
JITTER_ONE = 2048
BLEND_ONE = 2**15
"""A mixup weight of 1."""
MAX_RADIUS = 7
_SIGMAS = (0.1, 2.0)
_ERASED = (0.02, 0.33)  # share of the area
_ERASED_RATIO = (0.3, 3.3)
_TRIES = 10


class PixelDraw(NamedTuple):
    """One sample's draws. The default leaves its pixels as they are."""

    kind: int = -1
    """which of KINDS; -1 = none"""
    taps: tuple[int, ...] = ()
    """of a blur: 2 * MAX_RADIUS + 1 weights that sum to TAP_ONE"""
    jitter: tuple[float, float, float] | None = None
    """factors of brightness, contrast and saturation; 1 changes nothing"""
    box: tuple[int, int, int, int] | None = None
    """(y0, x0, y1, x1) in pixels, filled with noise"""
    noise: bytes = b""
    """of that box: 3 x height x width"""


PLAIN = PixelDraw()


def draws_facts(data: DataConfig) -> dict[str, int]:
    """{"draws": DRAWS} for a config whose pixels depend on how this module draws and `mixing` mixes, else {}."""
    drawn = data.colour == "3-augment" or data.colour_jitter > 0 or data.erase > 0 or data.mix.on
    return {"draws": DRAWS} if drawn else {}


def draw_pixels(data: DataConfig, rng: random.Random) -> PixelDraw:
    """The draws of one sample; `rng` stands where its crop and flip left it."""
    kind, taps = -1, tuple[int, ...]()
    if data.colour == "3-augment":  # DeiT III: one of three, always
        kind = int(rng.random() * len(KINDS))
        taps = blur_taps(round(rng.uniform(*_SIGMAS), 2)) if KINDS[kind] == "blur" else ()
    jitter = None
    if data.colour_jitter > 0:
        low, high = 1 - data.colour_jitter, 1 + data.colour_jitter
        jitter = (rng.uniform(low, high), rng.uniform(low, high), rng.uniform(low, high))
    if not data.erase or rng.random() >= data.erase:
        return PixelDraw(kind, taps, jitter)
    y0, x0, y1, x1 = box = _box(data.image_px, rng)
    return PixelDraw(kind, taps, jitter, box, rng.randbytes(3 * (y1 - y0) * (x1 - x0)))


@lru_cache(maxsize=256)
def blur_taps(sigma: float) -> tuple[int, ...]:
    """A Gaussian of `sigma` pixels, cut at 3.5 of it, as whole numbers around the middle that sum to TAP_ONE."""
    radius = min(MAX_RADIUS, int(3.5 * sigma))
    shape = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(radius + 1)]
    total = shape[0] + 2 * sum(shape[1:])
    side = [round(TAP_ONE * value / total) for value in shape[1:]] + [0] * (MAX_RADIUS - radius)
    return (*side[::-1], TAP_ONE - 2 * sum(side), *side)


def radius_of(taps: Sequence[int]) -> int:
    """Pixels to each side that these taps look at."""
    return max((i for i in range(1, MAX_RADIUS + 1) if taps[MAX_RADIUS + i]), default=0)


def _box(side: int, rng: random.Random) -> tuple[int, int, int, int]:
    """Random erasing (Zhong et al. 2020): area and ratio are drawn until the box fits."""
    for _ in range(_TRIES):
        area = side * side * rng.uniform(*_ERASED)
        ratio = math.exp(rng.uniform(*map(math.log, _ERASED_RATIO)))
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 1 <= height <= side and 1 <= width <= side:
            y, x = rng.randint(0, side - height), rng.randint(0, side - width)
            return y, x, y + height, x + width
    return 0, 0, 1, 1
