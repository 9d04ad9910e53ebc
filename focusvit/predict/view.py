"""What every predictor shares, with torch or without: from the bytes of an image file to a view, and the answer.

The image is reduced to the stored size, segmented, cropped and fitted by the very functions that make shards and
evaluation batches, so a prediction sees what the validation saw.
"""

from dataclasses import dataclass

import numpy as np

from focusvit.data.augment import View, eval_view
from pipeline.image.image import ImageConfig, prepare_image
from pipeline.superpixels.segment import SuperpixelConfig, segment_image


@dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """How a model looks at an image file. It travels inside an exported model."""

    image_px: int
    """side of the square image given to the model"""
    map_px: int
    """side of the superpixel map given to the model"""
    crop_fraction: float
    """side of the centre crop, as a share of the short side"""
    tokens: int | None
    """superpixels an image; None for a model that takes no map"""
    image: ImageConfig
    """the size at which the training images were stored"""
    superpixels: SuperpixelConfig

    def view(self, data: bytes) -> View:
        """What the model sees of an encoded image. Raises BadImage, ValueError for what is no encoded image."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise ValueError(
                f"the bytes of an image file are wanted, not {type(data).__name__}: read the file, "
                "pathlib.Path('photo.jpg').read_bytes(); `view_of` takes arrays and PIL images of the stored size"
            )
        _, _, rgb = prepare_image(data, self.image)
        return self.view_of(rgb)

    def view_of(self, rgb: np.ndarray) -> View:
        """What the model sees of an image of the stored size, uint8 (H, W, 3) or PIL; superpixels by fast-slic."""
        superpixels = segment_image(rgb, self.superpixels) if self.tokens is not None else None
        return eval_view(
            rgb,
            superpixels,
            self.tokens,
            image_px=self.image_px,
            map_px=self.map_px,
            crop_fraction=self.crop_fraction,
        )


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Probabilities float32 (C,) of one image, and what the model was shown of it."""

    shares: np.ndarray
    view: View

    def top(self, count: int) -> list[int]:
        """The classes with the largest shares, best first."""
        return np.argsort(-self.shares, kind="stable")[:count].tolist()
