"""Random and fixed views of one image and of its superpixel map, moved together.

Training views come from albumentations, re-seeded per (seed, epoch, sample): the view of a sample never depends on the
worker that makes it, nor on what was made before. A Compose of albumentations 2.0.8 gives every transform the same seed
(so the strength of one is tied to the choice of another) and all loader workers the same stream; here all transforms
draw from one generator, set anew for each sample.
"""

import random
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline import hierarchy
from pipeline.superpixels import Superpixels

from .order import key_of

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class View:
    """One view: image uint8 (H, W, 3); map (Hm, Wm) with exactly the wanted regions, or None."""

    image: NDArray[np.uint8]
    map: NDArray[Any] | None


class TrainViews:
    """Makes the random view of a sample. One instance per process or thread: it holds a random state."""

    def __init__(
        self,
        *,
        image_px: int,
        map_px: int,
        crop_scale: tuple[float, float] = (0.08, 1.0),
        crop_ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
        colour: str = "none",
        colour_jitter: float = 0.0,
        erase: float = 0.0,
    ) -> None:
        self.image_px, self.map_px = image_px, map_px
        self._crop_scale, self._crop_ratio, self._flip = crop_scale, crop_ratio, flip
        self._colour, self._colour_jitter, self._erase = colour, colour_jitter, erase
        self._python, self._numpy = random.Random(0), np.random.Generator(np.random.PCG64(0))

    @cached_property
    def _compose(self) -> Any:
        import albumentations as A  # here, since its import takes a second that no other verb should pay

        cv2.setNumThreads(0)  # loader workers are the parallelism; OpenCV's own threads would fight them
        steps: list[Any] = []
        if self._crop_scale[0] < 1.0:
            steps.append(
                A.RandomResizedCrop(
                    size=(self.image_px, self.image_px),
                    scale=self._crop_scale,
                    ratio=self._crop_ratio,
                    area_for_downscale="image",
                )
            )
        else:
            steps.append(A.Resize(self.image_px, self.image_px, area_for_downscale="image"))
        steps.append(A.HorizontalFlip(p=self._flip))
        compose = A.Compose(steps, save_applied_params=True)
        _share_state(compose, self._numpy, self._python)
        return compose

    def __call__(
        self, rgb: NDArray[np.uint8], superpixels: Superpixels | None, num_tokens: int | None, key: tuple[int, ...]
    ) -> View:
        """The view of `rgb` (h, w, 3) for `key`, usually (seed, epoch, sample id). The same key gives the same view."""
        self.reseed(key)
        result = self._compose(image=rgb)
        crop, flipped = _moved(result["applied_transforms"], rgb.shape[:2])
        return View(result["image"], _fit(superpixels, crop, flipped, self.map_px, num_tokens))

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
        if hasattr(transform, "transforms"):
            _share_state(transform, numpy_state, python_state)


def _moved(applied: list[tuple[str, dict]], shape: tuple[int, ...]) -> tuple[Box, bool]:
    """The crop box (y0, x0, y1, x1) in [0, 1] of the whole image, and whether it was mirrored."""
    crop, flipped = (0.0, 0.0, 1.0, 1.0), False
    for name, params in applied:
        if name == "RandomResizedCrop":
            x0, y0, x1, y1 = params["crop_coords"]
            crop = (y0 / shape[0], x0 / shape[1], y1 / shape[0], x1 / shape[1])
        elif name == "HorizontalFlip":
            flipped = True
    return crop, flipped


def _fit(
    superpixels: Superpixels | None, crop: Box, flip: bool, map_px: int, num_tokens: int | None
) -> NDArray[Any] | None:
    if superpixels is None or num_tokens is None:
        return None
    return hierarchy.fit(superpixels.map, superpixels.merges, crop, flip, (map_px, map_px), num_tokens)


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
    """The fixed view for scores, features and predictions: a centred square, resized to `image_px`."""
    height, width = rgb.shape[:2]
    crop = centre_box(height, width, crop_fraction)
    y0, x0, y1, x1 = (round(v * n) for v, n in zip(crop, (height, width) * 2))
    part = rgb[y0:y1, x0:x1]
    mode = cv2.INTER_AREA if part.shape[0] > image_px else cv2.INTER_LINEAR
    image = part if part.shape[:2] == (image_px, image_px) else cv2.resize(part, (image_px, image_px), interpolation=mode)
    return View(np.ascontiguousarray(image, np.uint8), _fit(superpixels, crop, False, map_px, num_tokens))
