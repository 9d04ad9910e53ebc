"""Training on street scenes from scratch: every row alike, region targets, on a CPU."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from focusvit.model.model import FocusViT
from focusvit.train.optim import OptimConfig, build_optimizer, lr_share, set_lr
from tests.benchmarks.hosts.dense import CLASSES, Scores, Split, confusion, truth_of
from tests.benchmarks.hosts.images import Sample
from tests.benchmarks.scenes.rows import Row, features, reading, view


@dataclass(frozen=True, kw_only=True)
class Learning:
    """AdamW with a cosine to 1 %; crops of 50 to 100 % of a frame's area, mirrored half of the time."""

    epochs: int
    batch: int = 8
    rates: tuple[float, ...] = (1e-3, 3e-3)
    """learning rates to choose from"""
    rate_epochs: int = 10
    """of trying one on seven eighths of the frames to learn from; the rest of them chooses"""
    weight_decay: float = 0.05
    warmup: float = 0.05
    """share of the steps"""
    least: float = 0.5
    """area of a crop"""
    seed: int = 0

    @property
    def note(self) -> str:
        rate = f"learning rate {self.rates[0]:g}"
        if len(self.rates) > 1:
            rate = (
                f"learning rate {', '.join(f'{rate:g}' for rate in self.rates)}, for each row and split the best after "
                f"{self.rate_epochs} epochs on every eighth frame to learn from, held out"
            )
        return (
            f"{self.epochs} epochs from scratch, AdamW, {rate}; warmed up over {self.warmup:.0%}, with a cosine to "
            f"1 %, decay {self.weight_decay:g}, batches of {self.batch}, bfloat16, crops of {self.least:.0%} to 100 % "
            f"of a frame, mirrored, seed {self.seed}, the same for all. Targets are the shares of the classes in a "
            "region's pixels (a patch, a cell, a superpixel). "
        )


@lru_cache(maxsize=512)
def frame_of(sample: Sample) -> np.ndarray:
    """uint8 RGB, whole."""
    return np.ascontiguousarray(cv2.imread(str(sample.path))[:, :, ::-1])


def best_rate(row: Row, samples: Sequence[Sample], count: int, learning: Learning) -> float:
    """The rate that is best on every eighth of `samples` after a short training on the others."""
    if len(learning.rates) == 1:
        return learning.rates[0]
    held = samples[4::8] or samples[-1:]
    others = [sample for sample in samples if sample not in held]
    short = replace(learning, epochs=learning.rate_epochs)
    found = {
        rate: scored(trained(row, others, count, short, rate), row, held, count).miou for rate in learning.rates
    }  # fmt: skip
    return max(found, key=found.__getitem__)


def trained(row: Row, samples: Sequence[Sample], count: int, learning: Learning, lr: float) -> FocusViT:
    """A model, learned from `samples`; its head reads regions."""
    torch.manual_seed(learning.seed)
    model = FocusViT(row.model).train()
    optimizer = build_optimizer(model, OptimConfig(weight_decay=learning.weight_decay))
    draw = np.random.default_rng(learning.seed)
    order = np.concatenate([draw.permutation(len(samples)) for _ in range(learning.epochs)])
    steps = max(1, len(order) // learning.batch)
    for step in range(steps):
        chosen = [samples[at] for at in order[step * learning.batch : (step + 1) * learning.batch]]
        set_lr(optimizer, lr * lr_share(step + 1, learning.warmup * steps, steps, 0.01))
        loss_of(model, row, chosen, count, learning.least, draw).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def loss_of(
    model: FocusViT, row: Row, samples: Sequence[Sample], count: int, least: float, draw: np.random.Generator,
) -> Tensor:  # fmt: skip
    """Mean over frames of the cross-entropy of regions, each weighted by its labelled pixels."""
    views, targets = [], []
    for sample in samples:
        frame, truth, flip = frame_of(sample), truth_of(sample), bool(draw.random() < 0.5)
        top, left, height, width = crop(frame.shape[0], frame.shape[1], least, draw)
        inside = (slice(top, top + height), slice(left, left + width))
        seen = view(row, frame[inside], count, flip)
        labels = truth[inside][:, ::-1] if flip else truth[inside]
        rows = torch.empty(count if row.superpixels else row.tokens, 0)
        shares = reading(row, seen, rows).shares(np.ascontiguousarray(labels), CLASSES)
        views.append(seen)
        targets.append(torch.from_numpy(shares).float())
    with torch.autocast("cpu", torch.bfloat16):
        logits = model.head(features(model, row, views, count))
    pixels = torch.stack(targets)
    spent = -(pixels * torch.log_softmax(logits.float(), -1)).sum((1, 2))
    return (spent / pixels.sum((1, 2)).clamp(min=1)).mean()


def crop(height: int, width: int, least: float, draw: np.random.Generator) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a part with the frame's own proportions and `least` to 1 of its area."""
    side = math.sqrt(draw.uniform(least, 1.0))
    tall, wide = round(height * side), round(width * side)
    return int(draw.integers(height - tall + 1)), int(draw.integers(width - wide + 1)), tall, wide


@torch.inference_mode()
def scored(model: FocusViT, row: Row, samples: Sequence[Sample], count: int) -> Scores:
    """Whole frames at full size."""
    tables, borders = [], []
    for sample in samples:
        one = view(row, frame_of(sample), count)
        values = features(model, row, [one], count)[0]
        table, border = confusion(reading(row, one, values), model.head(values), truth_of(sample))
        tables.append(table)
        borders.append(border)
    return Scores(np.stack(tables), np.array(borders))


def learned(
    row: Row, others: Sequence[Row], samples: Sequence[Sample], splits: Sequence[Split], count: int, learning: Learning
) -> tuple[list[Scores], list[float]]:  # fmt: skip
    """Scores of the test frames of all splits: by `row`, and by each of `others`, readings of the same model; and the
    learning rate of each split."""
    found: list[list[Scores]] = [[] for _ in (row, *others)]
    rates = []
    for split in splits:
        known = [samples[at] for at in split.train]
        rates.append(best_rate(row, known, count, learning))
        model = trained(row, known, count, learning, rates[-1])
        for into, one in zip(found, (row, *others)):
            into.append(scored(model, one, [samples[at] for at in split.test], count))
    joined = [
        Scores(np.concatenate([one.tables for one in each]), np.concatenate([one.borders for one in each]))
        for each in found
    ]
    return joined, rates
