"""A model trained by transformers.Trainer on labelled images with superpixels, as a user of that library would."""

import io
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from pipeline.image.image import decode_image
from pipeline.io import storage
from pipeline.sources import detect
from tests.benchmarks.model.throughput import superpixels

PX = 224


@dataclass(frozen=True)
class Sample:
    pixels: Tensor  # (3, 224, 224), normalised
    map: Tensor  # uint8 (112, 112)
    label: int


def labelled_images(
    data: str, split: str, *, classes: int, per_class: int, tokens: int
) -> tuple[list[Sample], list[str]]:
    """The first `per_class` images of the first `classes` classes, enlarged or reduced to 224 px, with superpixels."""
    source = detect(storage.resolve(data), split)
    rows = sorted((row for row in source.images() if row.class_name), key=lambda row: (str(row.class_name), row.source))
    names = sorted({str(row.class_name) for row in rows})[:classes]
    reader, samples = source.reader(), []
    for label, name in enumerate(names):
        for row in [row for row in rows if row.class_name == name][:per_class]:
            rgb = cv2.resize(decode_image(reader.read(row.file, row.offset, row.length)), (PX, PX))
            samples.append(Sample(normalised([rgb])[0], torch.from_numpy(superpixels(rgb, tokens)), label))
    return samples, names


def normalised(images: Sequence[np.ndarray]) -> Tensor:
    """uint8 (H, W, 3) each -> (B, 3, H, W) in [-1, 1], as Hugging Face's ViT takes it."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def train_with_trainer(
    model: nn.Module, samples: Sequence[Sample], *, with_maps: bool, batch_size: int, steps: int,
    lr: float = 3e-4, clock: Callable[[], float] = time.perf_counter,
) -> tuple[list[float], list[float]]:  # fmt: skip
    """(loss of each step, seconds of each step but the first) of transformers.Trainer on `samples`."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    losses: list[float] = []
    times = [clock()]

    class Watch(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(clock())

        def on_log(self, *_: Any, logs: dict[str, float] | None = None, **__: Any) -> None:
            if logs and "loss" in logs:
                losses.append(float(logs["loss"]))

    def collate(batch: Sequence[Sample]) -> dict[str, Tensor]:
        found = {
            "pixel_values": torch.stack([s.pixels for s in batch]),
            "labels": torch.tensor([s.label for s in batch]),
        }
        return found | ({"maps": torch.stack([s.map for s in batch])} if with_maps else {})

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=batch_size, max_steps=steps, learning_rate=lr, seed=0,
            logging_steps=1, save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=not torch.cuda.is_available(),
            remove_unused_columns=False, dataloader_drop_last=True, lr_scheduler_type="constant",
        )  # fmt: skip
        trainer = Trainer(
            model=model, args=arguments, train_dataset=list(samples), data_collator=collate, callbacks=[Watch()]
        )
        out, sys.stdout = sys.stdout, io.StringIO()  # without its bar it prints every log
        try:
            trainer.train()
        finally:
            sys.stdout = out
    return losses, [after - before for before, after in pairwise(times[1:])]
