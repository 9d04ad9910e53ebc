"""Images as Python has them: arrays, tensors, PIL images, places. `focusvit.superpixels` is the map of one of them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline.errors import UsageError
from pipeline.io import storage
from pipeline.superpixels import segment
from pipeline.superpixels.hierarchy import fit

from .places import image_places


def superpixels(image: Any, tokens: int) -> np.ndarray:
    """A map of exactly `tokens` superpixels: int64 (H, W), ids 0..tokens-1 in raster order of first pixel.

    `image` is a PIL image, an array (H, W, 3) or (H, W), or a tensor (3, H, W): uint8, or floats in [0, 1]. Maps of the
    same image at other numbers of tokens nest, up to 256.

    Raises ValueError for what is no image, and for more superpixels than pixels.
    """
    rgb = as_rgb(image)
    found = segment.segment_image(rgb, segment.SuperpixelConfig())
    return fit(*found, (0.0, 0.0, 1.0, 1.0), False, rgb.shape[:2], tokens).astype(np.int64)


def given(images: Any) -> list[tuple[str, Any]]:
    """One image, a batch or a sequence of images -> (name for people, image) each; a place becomes its address.

    Raises UsageError for a place that does not exist, for a folder without an image, and for what is no image at all.
    """
    if isinstance(images, (str, Path, bytes)) or hasattr(images, "getbands") or getattr(images, "ndim", 4) < 4:
        images = [images]
    if not isinstance(images, Iterable):
        raise UsageError(
            f"images are wanted (arrays, tensors, PIL images, places of files), not {type(images).__name__}."
        )
    found: list[tuple[str, Any]] = []
    for number, image in enumerate(images):
        if isinstance(image, (str, Path)):
            found += [(place.name, place.uri) for place in image_places([str(image)])]
        else:
            found.append((f"image {number}", image))
    return found


def file_bytes(image: Any) -> bytes:
    """The bytes of an image file: of an address, themselves, or of a PNG with these pixels. ValueError as `as_rgb`."""
    if isinstance(image, str):
        return storage.read_bytes(image)
    if isinstance(image, bytes):
        return image
    _, encoded = cv2.imencode(".png", as_rgb(image)[..., ::-1])
    return encoded.tobytes()


def as_rgb(image: Any) -> np.ndarray:
    """uint8 (H, W, 3) of a PIL image, an array or a tensor. Raises ValueError that says what was given."""
    if hasattr(image, "detach"):  # a tensor
        image = image.detach().cpu().numpy()
        if image.ndim == 3 and image.shape[0] in (1, 3):
            image = image.transpose(1, 2, 0)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
            raise ValueError(f"an image must be uint8 or floats in [0, 1], not {image.dtype} {image.shape}")
        if image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1):
            image = np.repeat(image.reshape(*image.shape[:2], 1), 3, 2)
        if np.issubdtype(image.dtype, np.floating):
            low, high = float(image.min(initial=0)), float(image.max(initial=0))
            if low < 0 or high > 1:
                raise ValueError(
                    f"floats of an image must lie in [0, 1], not {low:.3g} .. {high:.3g}: undo their normalisation "
                    "first (focusvit.segment.torch_slic.to_unit_range)"
                )
            image = np.round(image * 255).astype(np.uint8)
        image = np.ascontiguousarray(image)
    return segment.as_rgb(image)
