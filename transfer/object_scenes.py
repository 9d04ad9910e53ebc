"""What `focusvit bench objects` looks at: images whose objects have exact masks, generated or of CamVid."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from focusvit.array_loader import ArrayData
from pipeline.dataset import open_dataset
from pipeline.embedded import SHAPE_CLASSES, draw_shape
from pipeline.hierarchy import fit
from pipeline.superpixels import SuperpixelConfig, Superpixels, segment_image

from .dense_data import DenseConfig, load_dense, nearest

SIDE = 64
CAMVID_OBJECTS = (6, 8, 9, 10)  # sign-symbol, car, pedestrian, bicyclist
CAMVID_CLASSES, CAMVID_VOID = 12, (11,)
_WHOLE = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """What is looked at: images with one fine hierarchy each, and the object's mask, bool (N, 64, 64)."""

    images: np.ndarray
    fine: list[Superpixels]
    class_ids: np.ndarray
    masks: np.ndarray

    def data(self, tokens: int | None, identity: str) -> ArrayData:
        maps = None
        if tokens is not None:
            maps = torch.from_numpy(np.stack([fit(*each, _WHOLE, False, (SIDE, SIDE), tokens) for each in self.fine]))
        return ArrayData(
            images=torch.from_numpy(self.images).permute(0, 3, 1, 2).contiguous(), maps=maps, num_tokens=tokens,
            class_ids=torch.from_numpy(self.class_ids), identity=identity,
        )  # fmt: skip


def drawn_scenes(per_class: int, seed: int) -> Scenes:
    """Generated shapes with their exact masks. `seed` 0 is for training, 1 for looking."""
    images, masks, class_ids = [], [], []
    for class_id in range(len(SHAPE_CLASSES)):
        for number in range(per_class):
            image, mask = draw_shape(np.random.default_rng((91, seed, class_id, number)), class_id, SIDE)
            images.append(image)
            masks.append(mask.astype(bool))
            class_ids.append(class_id)
    return _scenes(np.stack(images), np.array(class_ids), np.stack(masks))


def camvid_scenes(uri: str, split: str = "val") -> Scenes:
    """Street scenes stretched to 64 x 64 of which signs, cars, pedestrians and bicyclists, the objects, take 1 % or
    more.
    """
    source = open_dataset(uri).split(split)
    config = DenseConfig(num_classes=CAMVID_CLASSES, ignore=CAMVID_VOID, num_regions=1, patch_grid=(8, 8))
    images, masks = [], []
    for number in range(source.num_samples):
        sample = load_dense(source, number, config)
        mask = np.isin(nearest(sample.label_map, (SIDE, SIDE)), CAMVID_OBJECTS)
        if mask.mean() >= 0.01:
            images.append(cv2.resize(sample.rgb, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
            masks.append(mask)
    return _scenes(np.stack(images), np.zeros(len(images), np.int64), np.stack(masks))


def _scenes(images: np.ndarray, class_ids: np.ndarray, masks: np.ndarray) -> Scenes:
    fine = [segment_image(image, SuperpixelConfig()) for image in images]
    return Scenes(images=images, fine=fine, class_ids=class_ids, masks=masks)
