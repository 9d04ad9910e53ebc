"""`python -m tests.benchmarks model`: what FocusViT costs beside a plain ViT and the controls, paired in one run."""

import os
import statistics
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from focusvit.model.cost import time_calls
from focusvit.recipes.cost import superpixel_seconds
from focusvit.segment.slic import slic
from tests.benchmarks.model.config import SECTIONS, BenchConfig
from tests.benchmarks.model.linear import linear_table
from tests.benchmarks.record import begin
from tests.benchmarks.report import Table

from . import tables as bench_tables

SEGMENTER = "pipeline.superpixels.segment (fast-slic, 256 fine regions) and pipeline.superpixels.hierarchy.fit"
DEVICE_SEGMENTER = "focusvit.segment.slic on the device, in batches"


def main(argv: list[str]) -> int:
    """Print the tables and save them under tests/benchmarks/results."""
    packages = ("torch", "transformers", "numpy", "fast-slic", "numba")
    config, record = begin("model", BenchConfig, argv, packages)
    record.say(
        f"FocusViT of size {config.size} on {config.device}, sections {', '.join(config.sections)}, "
        f"batches {config.batch_sizes}, {' and '.join(config.precisions_here())}, {config.rounds} rounds"
    )
    on_cpu = config.device == "cpu"
    segment = segmentation_seconds if on_cpu else partial(slic_seconds, device=config.device)
    segment_s, photos = segment(config.photos, config.timer)
    makers: dict[str, Callable[[], Iterable[Table]]] = {
        "throughput": lambda: bench_tables.throughput_tables(config, segment_s),
        "compiled": lambda: bench_tables.compiled_tables(config, segment_s),
        "training": lambda: [bench_tables.training_table(config)],
        "memory": lambda: [bench_tables.memory_table(config)],
        "sweep": lambda: [bench_tables.sweep_table(config, segment_s)],
        "large": lambda: [bench_tables.large_table(config)],
        "linear": lambda: [linear_table(config)],
    }
    record.facts |= {
        "threads": torch.get_num_threads(),
        "clock": config.clock,
        "segmenter": f"{SEGMENTER if on_cpu else DEVICE_SEGMENTER}: {segment_s * 1e3:.2f} ms an image "
        f"({config.clock} clock), {photos}",
    }
    for section in SECTIONS:
        for table in makers[section]() if section in config.sections else ():
            record.add(table)
    return record.end()


def segmentation_seconds(
    folder: str, clock: Callable[[], float], tokens: int = 64, count: int = 48
) -> tuple[float, str]:
    """Seconds an image for superpixels at 224 px, with as many threads as the model has, and what was segmented."""
    images, what = photos_or_drawn(folder, count)
    return superpixel_seconds(images, (112, 112), tokens, clock=clock), what


def slic_seconds(
    folder: str, clock: Callable[[], float], tokens: int = 64, count: int = 48, device: str = "cpu"
) -> tuple[float, str]:
    """As `segmentation_seconds`, by the segmenter that runs where the model does."""
    images, what = photos_or_drawn(folder, count)
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous().to(device)
    seconds = time_calls({"slic": lambda: slic(batch, tokens)}, 3, device, clock)["slic"]
    return statistics.median(seconds) / len(images), what


def superpixels(image: np.ndarray, tokens: int) -> np.ndarray:
    """A map (112, 112) of exactly `tokens` regions of one image, by the segmenter that makes the shards."""
    from pipeline.superpixels.hierarchy import fit
    from pipeline.superpixels.segment import SuperpixelConfig, segment_image

    return fit(*segment_image(image, SuperpixelConfig()), (0.0, 0.0, 1.0, 1.0), False, (112, 112), tokens)


def photos_or_drawn(folder: str, count: int) -> tuple[list[np.ndarray], str]:
    """At most `count` photos at 224 x 224, uint8 RGB, and what they are: those in `folder`, or in
    $FOCUSVIT_DATA/imagenet-sample, else drawn scenes.
    """
    import cv2

    from pipeline.sources.embedded import draw_shape

    cv2.setNumThreads(1)
    folder = folder or os.environ.get("FOCUSVIT_DATA", "") + "/imagenet-sample"
    files = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))[:count]
    images = [image[..., ::-1] for file in files if (image := cv2.imread(str(file))) is not None]
    what = f"{len(images)} photos"
    if not images:
        images, what = [draw_shape(np.random.default_rng(i), i % 8, 224)[0] for i in range(count)], "drawn scenes"
    return [np.ascontiguousarray(cv2.resize(x, (224, 224), interpolation=cv2.INTER_AREA)) for x in images], what
