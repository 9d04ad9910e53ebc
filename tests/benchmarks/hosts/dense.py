"""CamVid on a host: a linear head on what each way gives, full-size mIoU, borders, small things, and time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from focusvit.score.intervals import bootstrap
from tests.benchmarks.hosts.images import Sample, whole
from tests.benchmarks.hosts.readings import Reading, read_all
from tests.benchmarks.hosts.speed import SPEED_NOTE, Cost, speeds
from tests.benchmarks.hosts.states import Views, views_of
from tests.benchmarks.hosts.ways import Reads, Way, merged, pooled
from tests.benchmarks.report import Table
from transfer.dense.boundary import boundary_f1
from transfer.dense.segmentation import intersection_over_union, mean_iou
from transfer.protocols.softmax import SoftmaxRegression

CLASSES = 11
SMALL = (2, 6, 9, 10)
"""pole, sign, pedestrian, bicyclist"""
SIZE, HIGH = (252, 336), (364, 490)
C = 0.1  # inverse strength of the head's decay, the same for every way
COLUMNS = ("mIoU %", "less or more than the first row", "small things mIoU %", "boundary F1 %")
SCORE_NOTE = (
    "mIoU at full size over all test frames; differences with their 95 % interval (paired bootstrap over frames); "
    "small things: pole, sign, pedestrian, bicyclist. Scores of patches are enlarged bilinearly; 'painted': each "
    "pooled region's own score on its own pixels; 'read over': the last features averaged over superpixels, painted. "
)


@dataclass(frozen=True)
class Split:
    """Indices of the frames to learn from and to be scored on."""

    name: str
    train: Sequence[int]
    test: Sequence[int]


@dataclass(frozen=True)
class Scores:
    """Of the test frames, in the order of the splits: confusions (S, C, C) and boundary F1 (S,)."""

    tables: np.ndarray
    borders: np.ndarray

    def cells(self, first: "Scores") -> list[str]:
        """What `COLUMNS` names."""

        def gain(rows: np.ndarray) -> float:
            return mean_iou(self.tables[rows].sum(0)) - mean_iou(first.tables[rows].sum(0))

        everything = np.arange(len(self.tables))
        told = ""
        if self is not first:
            low, high = bootstrap(gain, len(everything), draws=300)
            told = f"{gain(everything) * 100:+.1f} ({low * 100:+.1f} .. {high * 100:+.1f})"
        small = intersection_over_union(self.tables.sum(0))[list(SMALL)].mean()
        border = float(np.nanmean(self.borders))
        return [f"{self.miou:.1f}", told, f"{small * 100:.1f}", f"{border * 100:.1f}"]

    @property
    def miou(self) -> float:
        return mean_iou(self.tables.sum(0)) * 100


def ways(depth: int) -> list[Way]:
    """At 252x336 px = 432 patches."""
    third, half, late = depth // 3, depth // 2, 2 * depth // 3
    found = [Way(), Way(reads="superpixels")]
    for size in ((210, 280), (168, 224)):
        found += [Way(size=size), Way(size=size, reads="superpixels")]
    found += [Way(size=(126, 168)), pooled("superpixels", {half: 196})]
    found += [
        pooled("superpixels", {at: n}, "tokens") for at, n in ((third, 196), (half, 196), (half, 100), (late, 100))
    ]
    found += [pooled("keys", {at: 196}, reads) for at in (third, half) for reads in ("patches", "superpixels")]
    found += [pooled("keys", {half: 100}), pooled("grid", {half: 196}), pooled("grid", {half: 100})]
    nested = {third: 256, half: 196, late: 100}
    return [*found, pooled("superpixels", nested, "tokens"), pooled("keys", nested), merged(432, 24, depth)]


def high_ways(depth: int) -> list[Way]:
    """At 364x490 px = 910 patches, and the whole host at 252x336."""
    third, half = depth // 3, depth // 2
    found = [Way(), Way(reads="superpixels"), Way(size=(308, 406)), Way(size=SIZE), Way(size=SIZE, reads="superpixels")]
    found += [pooled("superpixels", {at: 256}, "tokens") for at in (third, half)]
    found += [pooled("keys", {third: 256}), pooled("keys", {half: 256}), pooled("keys", {half: 256}, "superpixels")]
    return [*found, pooled("grid", {half: 256})]


def by_drive(samples: Sequence[Sample]) -> list[Split]:
    """Each drive once as the test, the others to learn from: frames of one drive look alike."""
    drives = [sample.path.name.split("_")[0] for sample in samples]
    return [
        Split(
            drive,
            [at for at, other in enumerate(drives) if other != drive],
            [at for at, other in enumerate(drives) if other == drive],
        )
        for drive in sorted(set(drives))
    ]


def scenes(
    host: Path, model: nn.Module, chosen: Sequence[Way], size: tuple[int, int], samples: Sequence[Sample],
    questions: dict[str, Sequence[Split]], batch: int, rounds: int,
) -> Iterator[tuple[list[Table], dict[Way, dict[str, Scores]]]]:  # fmt: skip
    """A table for each question (a name and its splits), a row for each way; and the scores themselves. Again after
    each way, with the rows so far."""
    costs = speeds(
        host, model, {way: [whole(sample, way.size or size) for sample in samples[:batch]] for way in chosen}, rounds
    )
    depths = sorted({way.depth for way in chosen if way.depth})
    views = {size: views_of(host, model, [whole(sample, size) for sample in samples], depths, batch)}
    scores: dict[Way, dict[str, Scores]] = {}
    for forward in dict.fromkeys(way.forward for way in chosen):
        reads: list[Reads] = [way.reads for way in chosen if way.forward == forward]
        own = forward.size or size
        seen = views.get(own) or Views([whole(sample, own) for sample in samples])
        found = read_all(host, model, forward, reads, seen, batch)
        for way in (way for way in chosen if way.forward == forward):
            scores[way] = {name: scored(found[way.reads], samples, splits) for name, splits in questions.items()}
        yield (
            [
                Table(
                    title=f"CamVid, {name}: {size[0]}x{size[1]} px, linear head on the frozen host",
                    columns=["way", "tokens", *COLUMNS, "CPU ms a frame", "speed"],
                    rows=[
                        _row(way, scores[way][name], scores[chosen[0]][name], costs[way])
                        for way in chosen
                        if way in scores
                    ],
                    note=SCORE_NOTE + SPEED_NOTE,
                )
                for name in questions
            ],
            scores,
        )


def exact_row(
    host: Path, model: nn.Module, size: tuple[int, int], samples: Sequence[Sample], splits: Sequence[Split], batch: int
) -> Scores:  # fmt: skip
    """The host as it is in float32: what bfloat16 changes."""
    views = Views([whole(sample, size) for sample in samples])
    return scored(read_all(host, model, Way(), ["patches"], views, batch, exact=True)["patches"], samples, splits)


def _row(way: Way, scores: Scores, first: Scores, cost: Cost) -> list[str]:
    return [way.name, way.tokens, *scores.cells(first), f"{cost[0]:.0f}", f"{cost[1]:.2f}x"]


def scored(readings: Sequence[Reading], samples: Sequence[Sample], splits: Sequence[Split]) -> Scores:
    """Of a head learned from the frames of each split and asked about its others."""
    tables, borders = [], []
    for split in splits:
        weights = head_of([readings[at] for at in split.train], [samples[at] for at in split.train])
        for at in split.test:
            found = confusion(readings[at], _linear(readings[at].values, weights), truth_of(samples[at]))
            tables.append(found[0])
            borders.append(found[1])
    return Scores(np.stack(tables), np.array(borders))


def confusion(reading: Reading, scores: Tensor, truth: np.ndarray) -> tuple[np.ndarray, float]:
    """((C, C) pixels, boundary F1) of one frame, from scores (R, classes)."""
    predicted = reading.painted(scores, truth.shape)
    counted = truth < CLASSES
    pairs = truth[counted].astype(np.int64) * CLASSES + predicted[counted]
    table = np.bincount(pairs, minlength=CLASSES**2).reshape(CLASSES, CLASSES)
    return table, boundary_f1(predicted, truth, CLASSES)


def head_of(readings: Sequence[Reading], samples: Sequence[Sample]) -> np.ndarray:
    """Softmax regression from rows to the shares of the classes in their pixels; each row counts by its pixels. Of
    patches a fourth, others in each frame: neighbours look alike. At most 30 steps, which is near the minimum.
    """
    values, targets, weights = [], [], []
    for number, (reading, sample) in enumerate(zip(readings, samples)):
        shares = reading.shares(truth_of(sample), CLASSES)
        counted = shares.sum(1) > 0
        if reading.smooth:
            rows, columns = np.indices(reading.regions.shape)
            counted &= ((rows + 2 * columns + number) % 4 == 0).ravel()
        values.append(reading.values[torch.from_numpy(counted)].numpy())
        targets.append(shares[counted] / shares[counted].sum(1, keepdims=True))
        weights.append(shares[counted].sum(1))
    area = np.concatenate(weights)
    problem = SoftmaxRegression(np.concatenate(values), np.concatenate(targets), area / area.mean())
    return problem.solve(C, problem.zeros(), 30, 1e-4)[0]


def _linear(values: Tensor, weights: np.ndarray) -> Tensor:
    matrix = torch.from_numpy(weights).float()
    return values.float() @ matrix[:-1] + matrix[-1]


@lru_cache(maxsize=512)
def _read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def truth_of(sample: Sample) -> np.ndarray:
    """(h, w) labels; those from 11 on are void."""
    assert sample.labels is not None
    return _read(sample.labels)
