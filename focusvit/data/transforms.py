"""The albumentations pipelines that a training may ask for. Only this module names its transforms."""

from typing import Any

import cv2


def cropping(image_px: int, scale: tuple[float, float], ratio: tuple[float, float]) -> Any:
    """The random resized crop, of which only the drawing of boxes is used."""
    import albumentations as A  # here, since its import takes a second that no other verb should pay

    return A.RandomResizedCrop(size=(image_px, image_px), scale=scale, ratio=ratio)


def rand_augment() -> Any:
    """Two operations of RandAugment, geometry among them, which take a mask along."""
    import albumentations as A

    cv2.setNumThreads(0)  # loader workers are the parallelism; OpenCV's own threads would fight them
    return A.Compose([A.SomeOf(_rand_augment(A), n=2, replace=True, p=1.0)])


def _rand_augment(A: Any) -> list[Any]:
    """RandAugment's operations at strength 9 of 10, in albumentations' terms; moved pixels are mirrored at the border.

    Mirroring instead of a grey fill: every pixel of the map then belongs to a region of the image.
    """
    moved = {"border_mode": cv2.BORDER_REFLECT_101, "p": 1.0}
    return [
        A.AutoContrast(p=1.0),
        A.Equalize(p=1.0),
        A.Posterize(num_bits=(4, 7), p=1.0),
        A.Solarize(threshold_range=(0.4, 1.0), p=1.0),
        A.ColorJitter(brightness=(0.2, 1.8), contrast=(1, 1), saturation=(1, 1), hue=0, p=1.0),
        A.ColorJitter(brightness=(1, 1), contrast=(0.2, 1.8), saturation=(1, 1), hue=0, p=1.0),
        A.ColorJitter(brightness=(1, 1), contrast=(1, 1), saturation=(0.2, 1.8), hue=0, p=1.0),
        A.Sharpen(p=1.0),
        A.Affine(rotate=(-27, 27), **moved),
        A.Affine(shear={"x": (-15, 15), "y": (0, 0)}, **moved),
        A.Affine(shear={"x": (0, 0), "y": (-15, 15)}, **moved),
        A.Affine(translate_percent={"x": (-0.4, 0.4), "y": (0, 0)}, **moved),
        A.Affine(translate_percent={"x": (0, 0), "y": (-0.4, 0.4)}, **moved),
    ]
