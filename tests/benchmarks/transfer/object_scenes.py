"""What `bench objects` looks at: images whose objects have exact masks, generated or cut out of CamVid."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from pipeline.errors import DataError
from pipeline.shards.dataset import open_dataset
from pipeline.sources.embedded import SHAPE_CLASSES, blend, colour, laid_over, shape_mask, smooth_noise, textured
from pipeline.superpixels.hierarchy import fit
from pipeline.superpixels.segment import SuperpixelConfig, Superpixels, segment_image
from tests.benchmarks.study.arrays import ArrayData
from transfer.dense.data import DenseConfig, load_dense, nearest

SIDE = 64
SHAPES = ("checked_square", "dotted_disc", "speckled_star", "striped_triangle")
CAMVID_OBJECTS = {"sign": (6,), "car": (8,), "person": (9, 10)}  # person: pedestrian or bicyclist
_CAMVID_CLASSES, _CAMVID_VOID = 12, (11,)
_WINDOWS_PX = (48, 64, 96, 128)
_SHARE = (0.1, 0.5)
_SHARE_OF_OTHERS = 0.02
_MOST_TRIES = 1000
_WHOLE = (0.0, 0.0, 1.0, 1.0)
Frame = tuple[np.ndarray, np.ndarray]  # rgb uint8 (H, W, 3), labels (H, W)


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """What is looked at: images with one fine hierarchy each, and the object's mask, bool (N, 64, 64)."""

    images: np.ndarray
    fine: list[Superpixels]
    class_ids: np.ndarray
    masks: np.ndarray
    classes: tuple[str, ...]

    def data(self, tokens: int | None, identity: str) -> ArrayData:
        maps = None
        if tokens is not None:
            maps = torch.from_numpy(np.stack([fit(*each, _WHOLE, False, (SIDE, SIDE), tokens) for each in self.fine]))
        return ArrayData(
            images=torch.from_numpy(self.images).permute(0, 3, 1, 2).contiguous(), maps=maps, num_tokens=tokens,
            class_ids=torch.from_numpy(self.class_ids), identity=identity,
        )  # fmt: skip


def drawn_scenes(per_class: int, seed: int) -> Scenes:
    """Generated objects of four classes before clutter, with their exact masks. `seed` 0 trains, 1 is looked at."""
    images, masks, class_ids = [], [], []
    for class_id, name in enumerate(SHAPES):
        for number in range(per_class):
            rng = np.random.default_rng((91, seed, class_id, number))
            image, mask = draw_cluttered(rng, SHAPE_CLASSES.index(name), SIDE)
            images.append(image)
            masks.append(mask.astype(bool))
            class_ids.append(class_id)
    return _scenes(np.stack(images), np.array(class_ids), np.stack(masks), SHAPES)


def draw_cluttered(
    rng: np.random.Generator, class_id: int, side_px: int, clutter: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """As `draw_shape`, before `clutter` plain silhouettes of any class: only the textured object in front tells the
    class. Its two colours differ by 0.35 or more in brightness, so that the texture is always seen.
    """
    texture, shape = SHAPE_CLASSES[class_id].split("_")
    scene = blend(smooth_noise(rng, side_px, octaves=3), colour(rng), colour(rng))
    silhouettes = [name.split("_")[1] for name in SHAPE_CLASSES]
    for _ in range(clutter):
        other = shape_mask(rng, silhouettes[rng.integers(len(silhouettes))], side_px)
        scene = laid_over(scene, blend(smooth_noise(rng, side_px, octaves=2), colour(rng), colour(rng)), other)
    mask = shape_mask(rng, shape, side_px)
    first, second = colour(rng), colour(rng)
    while abs(first.mean() - second.mean()) < 0.35:
        first, second = colour(rng), colour(rng)
    scene = laid_over(scene, blend(textured(rng, texture, side_px), first, second), mask)
    scene = scene + rng.normal(0, 0.02, scene.shape)
    return (np.clip(scene, 0, 1) * 255).astype(np.uint8), mask


def camvid_scenes(uri: str, split: str, per_class: int) -> Scenes:
    """`windows` of CamVid's frames of one split; its label maps have 12 values, the last one void."""
    source = open_dataset(uri).split(split)
    config = DenseConfig(num_classes=_CAMVID_CLASSES, ignore=_CAMVID_VOID, num_regions=1, patch_grid=(8, 8))
    samples = [load_dense(source, number, config) for number in range(source.num_samples)]
    frames = [(sample.rgb, nearest(sample.label_map, sample.rgb.shape[:2])) for sample in samples]
    return windows(frames, per_class, f"split '{split}' at {uri}")


def windows(frames: list[Frame], per_class: int, place: str) -> Scenes:
    """`per_class` windows of `frames` for each of sign, car and person, resized to 64 x 64.

    Objects of the class take a tenth to a half of their window, anywhere in it, and the other classes at most 2 %.
    Windows of one frame may overlap. Raises DataError when `place`, where the frames are from, has too few objects.
    """
    images, masks, class_ids = [], [], []
    for class_id, (name, ids) in enumerate(CAMVID_OBJECTS.items()):
        rng = np.random.default_rng((92, class_id))
        holding = [frame for frame in frames if np.isin(frame[1], ids).any()]
        for _ in range(per_class):
            image, mask = _window(rng, holding, name, place)
            images.append(image)
            masks.append(mask)
            class_ids.append(class_id)
    return _scenes(np.stack(images), np.array(class_ids), np.stack(masks), tuple(CAMVID_OBJECTS))


def _window(rng: np.random.Generator, frames: list[Frame], name: str, place: str) -> tuple[np.ndarray, np.ndarray]:
    """One window that holds an object of class `name` and hardly anything of the other classes: image and mask."""
    for _ in range(_MOST_TRIES if frames else 0):
        rgb, labels = frames[rng.integers(len(frames))]
        pixels = np.flatnonzero(np.isin(labels, CAMVID_OBJECTS[name]))
        height, width = labels.shape
        y, x = divmod(int(pixels[rng.integers(len(pixels))]), width)
        side = min(int(rng.choice(_WINDOWS_PX)), height, width)
        top = int(np.clip(y - rng.integers(side), 0, height - side))
        left = int(np.clip(x - rng.integers(side), 0, width - side))
        at = slice(top, top + side), slice(left, left + side)
        shares = {kind: np.isin(labels[at], ids).mean() for kind, ids in CAMVID_OBJECTS.items()}
        own = shares.pop(name)
        if _SHARE[0] <= own <= _SHARE[1] and sum(shares.values()) <= _SHARE_OF_OTHERS:
            mode = cv2.INTER_AREA if side > SIDE else cv2.INTER_LINEAR
            mask = nearest(np.isin(labels[at], CAMVID_OBJECTS[name]), (SIDE, SIDE))
            return cv2.resize(rgb[at], (SIDE, SIDE), interpolation=mode), mask
    raise DataError(
        f"{len(frames)} frames of {place} hold an object '{name}', but none of {_MOST_TRIES} random windows was filled "
        "by a tenth to a half with it alone. Give CamVid's images with label maps of its 12 classes, about 256 pixels "
        "high."
    )


def _scenes(images: np.ndarray, class_ids: np.ndarray, masks: np.ndarray, classes: tuple[str, ...]) -> Scenes:
    fine = [segment_image(image, SuperpixelConfig()) for image in images]
    return Scenes(images=images, fine=fine, class_ids=class_ids, masks=masks, classes=classes)
