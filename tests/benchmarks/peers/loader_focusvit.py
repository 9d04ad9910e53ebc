"""FocusViT's own loader (`loader`; `recipe`: as focusvit_small_in1k has it; `finished`: with the device's part on this
CPU), and the bare work in a loop (`floor`). Arguments: MODE DATA FOLDER."""

import random
import sys
from collections.abc import Iterator

import cv2
import numpy as np
from loader_parts import BATCH, BUDGETS, IMAGE_PX, MAP_PX, RECIPE, TOKENS, samples, serve

from focusvit.data.batch import Batch
from focusvit.data.config import DataConfig
from focusvit.data.loader import TrainLoader
from pipeline.shards.dataset import open_dataset
from pipeline.superpixels import hierarchy

mode, data = sys.argv[1:3]
FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


def bare(rows: list[dict]) -> Iterator[int]:
    """Decode, crop, flip and fit of bytes in memory: OpenCV and `hierarchy.fit`, nothing kept, nothing stacked."""
    for row in rows:
        rgb = cv2.imdecode(np.frombuffer(row["jpg"], np.uint8), FLAGS)
        regions = cv2.imdecode(np.frombuffer(row["map"], np.uint8), cv2.IMREAD_UNCHANGED)
        merges = np.frombuffer(row["merges"], np.uint8).reshape(-1, 2).copy()
        (height, width), area = rgb.shape[:2], random.uniform(0.08, 1)
        ratio = np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3)))
        h = max(1, min(height, round((area * height * width / ratio) ** 0.5)))
        w = max(1, min(width, round((area * height * width * ratio) ** 0.5)))
        y, x = random.randint(0, height - h), random.randint(0, width - w)
        flip = random.random() < 0.5
        shrinks = max(h, w) > IMAGE_PX
        mode = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        image = cv2.resize(rgb[y : y + h, x : x + w], (IMAGE_PX, IMAGE_PX), interpolation=mode)
        if flip:
            cv2.flip(image, 1)
        box = (y / height, x / width, (y + h) / height, (x + w) / width)
        hierarchy.fit(regions, merges, box, flip, (MAP_PX, MAP_PX), TOKENS)
        yield 1


if mode == "floor":
    kept = list(samples(data))
    serve(lambda: bare(kept), int)
else:
    position, split = 0, open_dataset(data).split("train")
    plain = mode == "loader"
    config = DataConfig(image_px=IMAGE_PX, map_px=MAP_PX) if plain else RECIPE

    def one_epoch() -> Iterator[Batch]:
        global position
        total = -(-split.num_samples // BATCH) * BATCH
        options = {"rank": 0, "world_size": 1, "tokens": TOKENS, "start_samples": position}
        if not plain:
            options["token_budgets"] = BUDGETS
        loader = TrainLoader(split, config, seed=0, global_batch=BATCH, total_samples=position + total, **options)
        for batch in loader:
            yield batch.finished() if mode == "finished" else batch
        position += total

    serve(one_epoch, len)
