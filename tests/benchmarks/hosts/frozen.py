"""Whole images on a frozen host: kNN and a logistic probe on its class token, and the CPU time of each way."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from focusvit.score.intervals import wilson
from tests.benchmarks.hosts.images import Sample, square
from tests.benchmarks.hosts.speed import SPEED_NOTE, speeds
from tests.benchmarks.hosts.states import Views, outputs, views_of
from tests.benchmarks.hosts.ways import Way, merged, pooled, prepared, some
from tests.benchmarks.report import Table
from transfer.protocols.knn import Knn
from transfer.protocols.logistic import Logistic
from transfer.protocols.protocol import Labelled

SIDE, PATCHES = 224, 256


def ways(depth: int) -> list[Way]:
    """Superpixels at several depths and budgets, and what else could be done with the same tokens."""
    third, half, late = depth // 3, depth // 2, 2 * depth // 3
    found = [Way(), Way(size=(168, 168)), Way(size=(112, 112))]
    found += [pooled("superpixels", {at: count}) for at, count in ((half, 128), (half, 64), (late, 128))]
    found += [pooled("keys", {at: count}) for at, count in ((third, 128), (half, 128), (half, 64))]
    nested = {third: 196, half: 128, late: 64}
    found += [pooled("grid", {half: 128}), pooled("superpixels", nested), pooled("keys", nested)]
    return [*found, merged(PATCHES, 16, depth)]


def frozen_table(
    host: Path, model: nn.Module, name: str, train: Sequence[Sample], test: Sequence[Sample], batch: int, rounds: int,
    only: Sequence[int] = (),
) -> Iterator[Table]:  # fmt: skip
    """A row for each way, the table again after each; `only` some of `ways`, by number."""
    chosen = some(ways(len(model.encoder.layer)), only)  # type: ignore[union-attr, arg-type]
    sides = {way: (way.size or (SIDE, SIDE))[0] for way in chosen}
    costs = speeds(host, model, {way: [square(one, sides[way]) for one in train[:batch]] for way in chosen}, rounds)
    depths = sorted({way.depth for way in chosen if way.depth})
    samples = [*train, *test]
    views = views_of(host, model, [square(sample, SIDE) for sample in samples], depths, batch)
    rows = []
    for way in chosen:
        seen = views if way.size is None else Views([square(sample, sides[way]) for sample in samples])
        values = class_tokens(host, prepared(model, way), way, seen, range(len(samples)), batch)
        told = probes(values[: len(train)], train, values[len(train) :], test)
        rows.append([way.name, way.tokens, *told, f"{costs[way][0]:.0f}", f"{costs[way][1]:.2f}x"])
        yield Table(
            title=f"{name}: {len(train)} images to learn from, {len(test)} to test, {SIDE} px, frozen host",
            columns=["way", "tokens", "kNN", "logistic", "CPU ms an image", "speed"],
            rows=list(rows),
            note="Top-1 with its 95 % interval (Wilson). " + SPEED_NOTE,
        )


@torch.inference_mode()
def class_tokens(
    host: Path, model: nn.Module, way: Way, views: Views, rows: Sequence[int], batch: int
) -> np.ndarray:  # fmt: skip
    """(rows, D), by the model as it was prepared."""
    parts = [
        outputs(host, model, way, views, rows[start : start + batch])[:, 0].numpy()
        for start in range(0, len(rows), batch)
    ]
    return np.concatenate(parts)


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
