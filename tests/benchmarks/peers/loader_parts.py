"""What the loader contestants share: the same samples, the same work on each, and how `bench loader` asks.

A contestant is a process that builds its own copy of the samples, then answers each line on standard input with one
pass over all of them: samples, cpu_s, wall_s, first_cpu_s, first_wall_s (to the first batch) and rss_mb, as JSON.
CPU time is that of the whole process with all its threads; no contestant uses worker processes, so a rate is per core.
"""

import dataclasses
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import cv2
import numpy as np
import psutil
import torch

from focusvit.data.augment import FineView, TrainViews
from focusvit.data.config import DataConfig
from focusvit.data.mixing import mix
from focusvit.recipes.imagenet import RECIPES
from pipeline.image.png import decode_gray8
from pipeline.shards.dataset import open_dataset
from pipeline.superpixels.segment import Superpixels

BATCH, IMAGE_PX, MAP_PX, TOKENS = 64, 224, 112, 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what a library prints must not look like an answer

cv2.setNumThreads(0)
torch.set_num_threads(1)
Members = dict[str, Any]


def samples(data: str) -> Iterator[Members]:
    """jpg, map (PNG), merges (uint8 pairs) and cls of each sample of the data set."""
    split = open_dataset(data).split("train")
    for i in range(split.num_samples):
        _, members = split.read_members(i)
        merges = members["merges.npy"][128:]
        yield {"jpg": members["jpg"], "map": members["spx.png"], "merges": merges, "cls": int(members["cls"])}


class SameWork:
    """Decode, random resized crop, flip and fit, by the functions that FocusViT's own loader uses."""

    def __init__(self) -> None:
        self._views = TrainViews(DataConfig(image_px=IMAGE_PX, map_px=MAP_PX))
        self._count = 0

    def __call__(self, jpg: Any, regions: Any, merges: Any, class_id: Any) -> tuple[torch.Tensor, torch.Tensor, int]:
        self._count += 1
        rgb = cv2.imdecode(np.frombuffer(jpg, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
        pairs = np.frombuffer(merges, np.uint8).reshape(-1, 2).copy()
        superpixels = Superpixels(decode_gray8(bytes(regions)), pairs)
        view = self._views(rgb, superpixels, TOKENS, (0, 0, self._count))
        return torch.from_numpy(view.image).permute(2, 0, 1), torch.from_numpy(view.map), int(class_id)


_CONFIG = RECIPES["focusvit_small_in1k"].config
RECIPE = dataclasses.replace(_CONFIG.data, loader_workers=0)
BUDGETS = _CONFIG.token_budgets


class RecipeWork:
    """The whole recipe of focusvit_small_in1k inside another loader: 3-augment and jitter by albumentations for each
    sample, then CutMix by superpixels for each batch, maps by our compiled paste and pixels by numpy.
    """

    def __init__(self) -> None:
        import albumentations as A

        one = A.OneOf([A.ToGray(p=1.0), A.Solarize(p=1.0), A.GaussianBlur(sigma_limit=(0.1, 2.0), p=1.0)], p=1.0)
        strength = (1 - RECIPE.colour_jitter, 1 + RECIPE.colour_jitter)
        jitter = A.ColorJitter(brightness=strength, contrast=strength, saturation=strength, hue=0, p=1.0)
        self._colour = A.Compose([one, jitter])
        self._views = TrainViews(DataConfig(image_px=IMAGE_PX, map_px=MAP_PX))
        self._count = 0
        at = (np.arange(IMAGE_PX) * 2 + 1) * MAP_PX // (2 * IMAGE_PX)
        self._enlarged = np.ix_(at, at)

    def sample(self, jpg: Any, regions: Any, merges: Any, class_id: Any) -> tuple[FineView, int]:
        self._count += 1
        rgb = cv2.imdecode(np.frombuffer(jpg, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
        pairs = np.frombuffer(merges, np.uint8).reshape(-1, 2).copy()
        view = self._views.fine(rgb, Superpixels(decode_gray8(bytes(regions)), pairs), (0, 0, self._count))
        return dataclasses.replace(view, image=self._colour(image=view.image)["image"]), int(class_id)

    def batch(self, samples: list[tuple[FineView, int]]) -> tuple[torch.Tensor, ...]:
        """Images, maps, classes, classes of the partners, shares."""
        tokens, images, maps, shares = random.choice(BUDGETS), [], [], []
        partners = samples[1:] + samples[:1]
        for (host, _), (guest, _) in zip(samples, partners):
            mixed = mix(host, guest, tokens, RECIPE.mix, random.Random(self._count + len(maps)))
            image = host.image
            if mixed.mask is not None:
                image = np.where(mixed.mask[self._enlarged][..., None], guest.image, host.image)
            images.append(torch.from_numpy(image).permute(2, 0, 1))
            maps.append(torch.from_numpy(mixed.map))
            shares.append(mixed.share)
        first, second = ([class_id for _, class_id in part] for part in (samples, partners))
        return torch.stack(images), torch.stack(maps), *map(torch.tensor, (first, second, shares))


def load_torchvision() -> Any:
    """torchvision.transforms. The registry's wheel expects a CUDA torch; beside a CPU-only one its two compiled
    operators are missing at import, though no transform needs them: their names are declared first.
    """
    try:
        import torchvision.transforms
    except RuntimeError:
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        load_torchvision.library = library  # type: ignore[attr-defined] - it must live as long as the process
        import torchvision.transforms
    return torchvision.transforms


def default_transform() -> Callable[[Any], torch.Tensor]:
    """The training transform of torchvision's and most loaders' ImageNet examples, on a PIL image. It knows no maps."""
    transforms = load_torchvision()
    steps = [transforms.RandomResizedCrop(IMAGE_PX), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    return transforms.Compose([*steps, transforms.Normalize(MEAN, STD)])


def serve(passes: Callable[[], Iterable[Any]], size_of: Callable[[Any], int]) -> None:
    """Answer lines on standard input until it ends. `passes()` begins one pass and gives its batches."""
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        first_wall = first_cpu = count = 0.0
        for batch in passes():
            if not count:
                first_wall, first_cpu = time.perf_counter() - wall, time.process_time() - cpu
            count += size_of(batch)
        found = {
            "samples": int(count),
            "cpu_s": time.process_time() - cpu,
            "wall_s": time.perf_counter() - wall,
            "first_cpu_s": first_cpu,
            "first_wall_s": first_wall,
            "rss_mb": psutil.Process().memory_info().rss / 2**20,
        }
        ANSWERS.write(json.dumps(found) + "\n")
        ANSWERS.flush()
