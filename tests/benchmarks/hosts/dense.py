"""Segmentation on a frozen host: a linear head on patch features, full-size mIoU, and the CPU time of each way."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from focusvit.drop_in.readout import superpixel_readout
from focusvit.score.intervals import bootstrap
from tests.benchmarks.hosts.images import Sample, batches, normalised, whole
from tests.benchmarks.hosts.speed import SPEED_NOTE, speeds
from tests.benchmarks.hosts.ways import Way, maps_of, merged, nested, pooled, prepared, run
from tests.benchmarks.report import Table
from transfer.dense.boundary import boundary_f1
from transfer.dense.segmentation import mean_iou, region_histograms
from transfer.protocols.softmax import SoftmaxRegression

SIZE, SMALL = (252, 336), (168, 224)
CLASSES = 11
READOUT = Way("all patches, read out over 196 superpixels", "superpixels", ((0, 196),))
C = 0.1  # inverse strength of the head's decay, the same for every way


def ways(depth: int) -> list[Way]:
    """At 18 x 24 = 432 patches."""
    half, late = depth // 2, 2 * depth // 3
    found = [Way("all patches"), Way("168x224 px", shrink=2 / 3), Way("126x168 px", shrink=0.5)]
    found += [pooled("superpixels", tokens, at) for at in (half // 2, half, late) for tokens in (100, 196)]
    found += [pooled(kind, tokens, half) for kind in ("keys", "grid") for tokens in (100, 196)]
    return [*found, nested("superpixels", {half // 2: 256, half: 196, late: 100}), merged(432, 16, depth)]


@dataclass(frozen=True)
class Split:
    """Frames to learn from and to be scored on."""

    name: str
    train: Sequence[Sample]
    test: Sequence[Sample]


def by_drive(samples: Sequence[Sample]) -> Iterator[Split]:
    """Each drive once as the test, the others to learn from: frames of one drive look alike."""
    for drive in sorted({sample.path.name.split("_")[0] for sample in samples}):
        test = [sample for sample in samples if sample.path.name.startswith(drive)]
        yield Split(f"drive {drive}", [sample for sample in samples if sample not in test], test)


def dense_table(host: Path, model: nn.Module, splits: Sequence[Split], batch: int) -> Table:
    """A row for each way; mIoU over the frames of all splits, each scored by a head that saw none of its kind."""
    chosen = ways(len(model.encoder.layer))
    views = {way: [whole(sample, _size(way)) for sample in splits[0].train[:batch]] for way in chosen}
    seconds = speeds(host, model, views)
    rows = []
    for way in chosen:
        rows.append([way.name, way.tokens, *_scores(host, model, way, splits, batch, False), *seconds[way]])
        if way.kind == "all" and way.shrink == 1:
            rows.append([READOUT.name, "all", *_scores(host, model, way, splits, batch, True), "", ""])
    where = ", ".join(split.name for split in splits)
    columns = ["way", "tokens", "mIoU %", "95 % interval", "pixels right %", "boundary F1 %", "CPU ms a frame", "speed"]
    return Table(
        title=f"CamVid, {where}: {SIZE[0]}x{SIZE[1]} px, linear head on the frozen host",
        columns=columns,
        rows=rows,
        note="mIoU at full size over all test frames, interval by bootstrap over frames; patch logits enlarged "
        "bilinearly unless read out over superpixels. " + SPEED_NOTE,
    )


def _size(way: Way) -> tuple[int, int]:
    return tuple(round(side * way.shrink / 14) * 14 for side in SIZE)  # type: ignore[return-value]


def _scores(host: Path, model: nn.Module, way: Way, splits: Sequence[Split], batch: int, readout: bool) -> list[str]:
    tables, borders = [], []
    samples = list(dict.fromkeys(sample for split in splits for sample in (*split.train, *split.test)))
    known = dict(_features(host, model, way, samples, batch))
    for split in splits:
        weights = _head([known[sample] for sample in split.train], split.train)
        for sample in split.test:
            predicted = _predict(known[sample], weights, sample, readout)
            truth = _truth(sample)
            tables.append(region_histograms(predicted, truth, CLASSES, CLASSES).T)
            borders.append(boundary_f1(predicted, truth, CLASSES))
    stacked = np.stack(tables)
    low, high = bootstrap(lambda rows: mean_iou(stacked[rows].sum(0)), len(stacked), draws=200)
    total = stacked.sum(0)
    right = np.trace(total) / total.sum()
    border = float(np.nanmean(borders))
    interval = f"{low * 100:.1f} - {high * 100:.1f}"
    return [f"{mean_iou(total) * 100:.1f}", interval, f"{right * 100:.1f}", f"{border * 100:.1f}"]


@torch.inference_mode()
def _features(
    host: Path, model: nn.Module, way: Way, samples: Sequence[Sample], batch: int
) -> Iterator[tuple[Sample, Tensor]]:
    """(D, h, w) of every frame."""
    prepared(model, way)
    rows, columns = (side // 14 for side in _size(way))
    for part in batches(samples, batch):
        images = [whole(sample, _size(way)) for sample in part]
        patches = run(model, way, images, normalised(images, host)).last_hidden_state[:, -rows * columns :]
        yield from zip(part, patches.transpose(1, 2).unflatten(2, (rows, columns)))


def _head(features: Sequence[Tensor], samples: Sequence[Sample]) -> np.ndarray:
    """Softmax regression from patch features to the shares of the classes in each patch."""
    values, targets = [], []
    for one, sample in zip(features, samples):
        _, rows, columns = one.shape
        truth = _truth(sample)
        cells = (np.arange(truth.shape[0]) * rows // truth.shape[0])[:, None] * columns
        cells = cells + np.arange(truth.shape[1]) * columns // truth.shape[1]
        shares = region_histograms(cells, truth, rows * columns, CLASSES)
        counted = shares.sum(1) > 0
        values.append(one.flatten(1).T.numpy()[counted])
        targets.append(shares[counted] / shares[counted].sum(1, keepdims=True))
    problem = SoftmaxRegression(np.concatenate(values), np.concatenate(targets))
    return problem.solve(C, problem.zeros(), 100, 1e-4)[0]


def _predict(features: Tensor, weights: np.ndarray, sample: Sample, readout: bool) -> np.ndarray:
    """Classes of the full-size frame."""
    height, width = _truth(sample).shape
    if readout:
        grid = (features.shape[1], features.shape[2])
        ((maps,),) = (maps_of(READOUT, [whole(sample, SIZE)], grid),)
        features = superpixel_readout(features[None], maps[None] if maps.ndim == 2 else maps, 196)[0]
    matrix = torch.from_numpy(weights).float()
    logits = torch.einsum("dhw,dc->chw", features, matrix[:-1]) + matrix[-1][:, None, None]
    mode = "nearest" if readout else "bilinear"
    corners = {} if readout else {"align_corners": False}
    return nn.functional.interpolate(logits[None], (height, width), mode=mode, **corners)[0].argmax(0).numpy()


def _truth(sample: Sample) -> np.ndarray:
    assert sample.labels is not None
    return np.asarray(Image.open(sample.labels))
