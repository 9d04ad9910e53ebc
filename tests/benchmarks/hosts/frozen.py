"""Whole images on a frozen host: kNN and a logistic probe on its class token, and the CPU time of each way."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from focusvit.score.intervals import wilson
from tests.benchmarks.hosts.images import Sample, batches, normalised, square
from tests.benchmarks.hosts.speed import SPEED_NOTE, speeds
from tests.benchmarks.hosts.ways import Way, merged, nested, pooled, prepared, run
from tests.benchmarks.report import Table
from transfer.protocols.knn import Knn
from transfer.protocols.logistic import Logistic
from transfer.protocols.protocol import Labelled

SIDE, PATCHES = 224, 256


def ways(depth: int) -> list[Way]:
    """Superpixels at several depths and budgets, and what else could be done with the same tokens."""
    third, half, late = depth // 3, depth // 2, 2 * depth // 3
    found = [Way("all patches"), Way("168 px", shrink=0.75), Way("112 px", shrink=0.5)]
    found += [pooled("superpixels", tokens, at) for at in (third, half, late, late + 1) for tokens in (64, 128, 196)]
    found += [pooled(kind, 128, at) for kind in ("keys", "grid") for at in (half, late)]
    found.append(nested("superpixels", {half: 196, late: 128, late + 2: 64}))
    return [*found, merged(PATCHES, 8, depth), merged(PATCHES, 16, depth)]


def frozen_table(host: Path, model: nn.Module, train: Sequence[Sample], test: Sequence[Sample], batch: int) -> Table:
    """A row for each way."""
    chosen = ways(len(model.encoder.layer))
    views = {way: [square(sample, round(SIDE * way.shrink)) for sample in train[:batch]] for way in chosen}
    seconds = speeds(host, model, views)
    rows = []
    for way in chosen:
        values = [features(host, model, way, samples, batch) for samples in (train, test)]
        rows.append([way.name, way.tokens, *probes(values[0], train, values[1], test), *seconds[way]])
    return Table(
        title=f"{len(train)} images to learn from, {len(test)} to test, {SIDE} px, class token of the frozen host",
        columns=["way", "tokens", "kNN", "logistic", "CPU ms an image", "speed"],
        rows=rows,
        note="Top-1 with its 95 % interval (Wilson). " + SPEED_NOTE,
    )


@torch.inference_mode()
def features(host: Path, model: nn.Module, way: Way, samples: Sequence[Sample], batch: int) -> np.ndarray:
    """(S, D) class tokens."""
    prepared(model, way)
    side = round(SIDE * way.shrink)
    found = []
    for part in batches(samples, batch):
        images = [square(sample, side) for sample in part]
        found.append(run(model, way, images, normalised(images, host)).last_hidden_state[:, 0].numpy())
    return np.concatenate(found)


def probes(bank: np.ndarray, train: Sequence[Sample], values: np.ndarray, test: Sequence[Sample]) -> list[str]:
    """'81.2 (76.1 - 85.4)' of kNN and of the logistic probe; every fifth sample to learn from is held out to choose
    C."""
    ids, wanted = (np.array([sample.class_id for sample in samples]) for samples in (train, test))
    held = np.arange(len(ids)) % 5 == 4
    num_classes = int(ids.max()) + 1
    part, rest = (Labelled(values=bank[rows], truth=ids[rows], num_classes=num_classes) for rows in (~held, held))
    told = []
    for protocol in (Knn(), Logistic()):
        (fitted,) = protocol.fit(part, rest)
        right = int((fitted.predict(values).argmax(1) == wanted).sum())
        low, high = wilson(right, len(wanted))
        told.append(f"{right / len(wanted):.1%} ({low:.1%} - {high:.1%})")
    return told
