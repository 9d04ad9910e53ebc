"""Random and fixed views of one image and of its superpixel map, moved together.

Training views come from albumentations, re-seeded per (seed, epoch, sample): the view of a sample never depends on the
worker that makes it, nor on what was made before. A Compose of albumentations 2.0.8 gives every transform the same seed
(so the strength of one is tied to the choice of another) and all loader workers the same stream; here all transforms
draw from one generator, set anew for each sample.

Crop and flip move the map by its crop box alone, at the map's own resolution. Other geometry (RandAugment) takes the
map along as a mask. Either way the result is a *fine* map of the view; exactly K regions are made of it at the end.
Colours and erasing are drawn here and done on the device, for a whole batch (`draws`, `pixels`).
"""

import random
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.superpixels import hierarchy
from pipeline.superpixels.segment import Superpixels, as_rgb

from .config import DataConfig
from .draws import PLAIN, PixelDraw, draw_pixels
from .order import key_of
from .transforms import cropping, rand_augment

Box = tuple[float, float, float, float]
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class View:
    """One view: image uint8 (H, W, 3); map (Hm, Wm) with exactly the wanted regions, or None; what is still to be done
    to the pixels of a training view."""

    image: NDArray[np.uint8]
    map: NDArray[Any] | None
    draw: PixelDraw = PLAIN


@dataclass(frozen=True)
class FineView:
    """A view before its regions are merged: `fine` uint8 (Hm, Wm) holds some of the ids of `merges`."""

    image: NDArray[np.uint8]
    fine: NDArray[np.uint8] | None
    merges: NDArray[np.uint8] | None
    draw: PixelDraw = PLAIN

    def fit(self, num_tokens: int | None) -> View:
        """Exactly `num_tokens` regions."""
        if self.fine is None or self.merges is None or num_tokens is None:
            return View(self.image, None, self.draw)
        return View(self.image, hierarchy.fit_warped(self.fine, self.merges, num_tokens), self.draw)


class TrainViews:
    """Makes the random view of a sample. One instance per process or thread: it holds a random state."""

    def __init__(self, data: DataConfig) -> None:
        self._data = data
        self._warps = data.colour == "randaugment"  # moves pixels in ways that a crop box does not describe
        self._python, self._numpy = random.Random(0), np.random.Generator(np.random.PCG64(0))
        self._unflipped = np.empty((data.image_px, data.image_px, 3), np.uint8)

    @cached_property
    def _transforms(self) -> tuple[Any, Any]:
        """The drawing of crop boxes, and the geometry after crop and flip, on one random state; None where none is."""
        data = self._data
        crop = cropping(data.image_px, data.crop_scale, data.crop_ratio) if data.crop_scale[0] < 1 else None
        after = rand_augment() if self._warps else None
        if crop is not None:
            crop.set_random_state(self._numpy, self._python)
        if after is not None:
            _share_state(after, self._numpy, self._python)
        return crop, after

    def __call__(
        self,
        rgb: NDArray[np.uint8],
        superpixels: Superpixels | None,
        num_tokens: int | None,
        key: tuple[int, ...],
        out: NDArray[np.uint8] | None = None,
    ) -> View:
        """The view of `rgb` (h, w, 3) for `key`, usually (seed, epoch, sample id). The same key gives the same view.

        `out`, uint8 (image_px, image_px, 3), is where its image is put: no copy is made of it then.
        """
        if self._warps or superpixels is None or num_tokens is None:
            return self.fine(rgb, superpixels, key, out).fit(num_tokens)
        image, crop, flipped = self._cropped(rgb, key, out)
        size = (self._data.map_side, self._data.map_side)
        regions = hierarchy.fit(superpixels.map, superpixels.merges, crop, flipped, size, num_tokens)
        return View(image, regions, draw_pixels(self._data, self._python))

    def fine(
        self,
        rgb: NDArray[np.uint8],
        superpixels: Superpixels | None,
        key: tuple[int, ...],
        out: NDArray[np.uint8] | None = None,
    ) -> FineView:
        """The same view with the fine map, for whoever goes on changing it (mixing)."""
        image, crop, flipped = self._cropped(rgb, key, out)
        side, fine = self._data.map_side, None
        if superpixels is not None:
            before = self._data.image_px if self._warps else side
            fine = _nearest(superpixels.map, crop, flipped, (before, before))
        if self._warps:
            warped, fine = self._warped(image, fine)
            np.copyto(image, warped)
            fine = None if fine is None else _nearest(fine, WHOLE, False, (side, side))
        draw = draw_pixels(self._data, self._python)
        return FineView(image, fine, None if superpixels is None else superpixels.merges, draw)

    def _cropped(
        self, rgb: NDArray[np.uint8], key: tuple[int, ...], out: NDArray[np.uint8] | None = None
    ) -> tuple[NDArray[np.uint8], Box, bool]:
        """Crop and flip of the view: image, crop box (y0, x0, y1, x1) in [0, 1] of the whole, whether mirrored.

        The box is drawn by albumentations and applied here: its Compose takes as long as a third of a JPEG decode.
        """
        self.reseed(key)
        rgb = as_rgb(rgb)
        draw, box, part = self._transforms[0], WHOLE, rgb
        if draw is not None:
            x0, y0, x1, y1 = draw.get_params_dependent_on_data({"shape": rgb.shape}, {})["crop_coords"]
            height, width = rgb.shape[:2]
            box, part = (y0 / height, x0 / width, y1 / height, x1 / width), rgb[y0:y1, x0:x1]
        image = np.empty_like(self._unflipped) if out is None else out
        flipped = self._python.random() < self._data.flip
        _resize(part, self._unflipped if flipped else image)
        if flipped:
            cv2.flip(self._unflipped, 1, dst=image)
        return image, box, flipped

    def _warped(self, image: NDArray[np.uint8], mask: Any) -> tuple[NDArray[np.uint8], Any]:
        """Image and mask after RandAugment; the generators go on where `_cropped` left them."""
        after = self._transforms[1]
        moved = after(image=image) if mask is None else after(image=image, mask=mask)
        return moved["image"], moved.get("mask")

    def reseed(self, key: tuple[int, ...]) -> None:
        """Put both generators into a state that depends on `key` alone (setting a state is cheaper than a new one)."""
        low, high = key_of("view", *key), key_of("view+", *key)
        self._python.seed(low)
        self._numpy.bit_generator.state = {
            "bit_generator": "PCG64",
            "state": {"state": low << 64 | high, "inc": high << 1 | 1},
            "has_uint32": 0,
            "uinteger": 0,
        }


def _share_state(compose: Any, numpy_state: np.random.Generator, python_state: random.Random) -> None:
    compose.set_random_state(numpy_state, python_state)
    for transform in compose.transforms:
        transform.set_random_state(numpy_state, python_state)
        if hasattr(transform, "transforms_ps") or isinstance(transform, type(compose)):  # OneOf and the like
            _share_state(transform, numpy_state, python_state)


def _resize(part: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """Fill the square `out`: area averages where a side shrinks, linear interpolation otherwise."""
    side = out.shape[0]
    if part.shape[:2] == (side, side):
        np.copyto(out, part)
        return
    mode = cv2.INTER_AREA if max(part.shape[:2]) > side else cv2.INTER_LINEAR
    cv2.resize(part, (side, side), dst=out, interpolation=mode)


def _nearest(fine: NDArray[np.uint8], crop: Box, flip: bool, size: tuple[int, ...]) -> NDArray[np.uint8]:
    """Nearest sampling at pixel centres, as `hierarchy.fit` does it, without merging anything."""
    rows = _centres(crop[0], crop[2], fine.shape[0], size[0])
    columns = _centres(crop[1], crop[3], fine.shape[1], size[1])
    return fine.take(rows, 0).take(columns[::-1] if flip else columns, 1)


def _centres(start: float, stop: float, length: int, samples: int) -> NDArray[np.int64]:
    positions = (start + (np.arange(samples) + 0.5) / samples * (stop - start)) * length
    return np.clip(positions.astype(np.int64), 0, length - 1)


def centre_box(height: int, width: int, fraction: float) -> Box:
    """The centred square whose side is `fraction` of the short side, as (y0, x0, y1, x1) in [0, 1].

    This is "resize the short side to px / fraction, then crop px from the centre", in one step.
    """
    side = max(1, round(min(height, width) * fraction))
    y0, x0 = (height - side) // 2, (width - side) // 2
    return y0 / height, x0 / width, (y0 + side) / height, (x0 + side) / width


def eval_view(
    rgb: NDArray[np.uint8],
    superpixels: Superpixels | None,
    num_tokens: int | None,
    *,
    image_px: int,
    map_px: int,
    crop_fraction: float = 0.875,
) -> View:
    """The fixed view for scores, features and predictions: a centred square, resized to `image_px`. `rgb` may also be a
    PIL image.
    """
    rgb = as_rgb(rgb)
    height, width = rgb.shape[:2]
    crop = centre_box(height, width, crop_fraction)
    y0, x0, y1, x1 = (round(v * n) for v, n in zip(crop, (height, width) * 2))
    image = np.empty((image_px, image_px, 3), np.uint8)
    _resize(rgb[y0:y1, x0:x1], image)
    if superpixels is None or num_tokens is None:
        return View(image, None)
    return View(image, hierarchy.fit(superpixels.map, superpixels.merges, crop, False, (map_px, map_px), num_tokens))
