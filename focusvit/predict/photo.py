"""`focusvit.superpixels`: the superpixels of one image, whatever holds it, by the code that makes the shards."""

from typing import Any

import numpy as np

from pipeline.superpixels import segment
from pipeline.superpixels.hierarchy import fit


def superpixels(image: Any, tokens: int) -> np.ndarray:
    """A map of exactly `tokens` superpixels: int64 (H, W), ids 0..tokens-1 in raster order of first pixel.

    `image` is a PIL image, an array (H, W, 3) or (H, W), or a tensor (3, H, W): uint8, or floats in [0, 1]. Maps of the
    same image at other numbers of tokens nest, up to 256.

    Raises ValueError for what is no image, and for more superpixels than pixels.
    """
    rgb = as_rgb(image)
    found = segment.segment_image(rgb, segment.SuperpixelConfig())
    return fit(*found, (0.0, 0.0, 1.0, 1.0), False, rgb.shape[:2], tokens).astype(np.int64)


def as_rgb(image: Any) -> np.ndarray:
    """uint8 (H, W, 3) of a PIL image, an array or a tensor. Raises ValueError that says what was given."""
    if hasattr(image, "detach"):  # a tensor
        image = image.detach().cpu().numpy()
        if image.ndim == 3 and image.shape[0] in (1, 3):
            image = image.transpose(1, 2, 0)
    if isinstance(image, np.ndarray):
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
