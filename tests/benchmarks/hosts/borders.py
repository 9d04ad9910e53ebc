"""Borders on BSDS500 without any label: features of a frozen host fall into a few clusters an image, and the borders of
the clusters are compared with those that people drew."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import nn

from focusvit.score.intervals import of_mean
from tests.benchmarks.hosts.readings import Reading, read_all
from tests.benchmarks.hosts.states import Views
from tests.benchmarks.hosts.ways import Reads, Way, pooled
from tests.benchmarks.pipeline.superpixels import Photo
from tests.benchmarks.report import Table
from transfer.dense.boundary import TOLERANCE, boundary_f1, class_borders, distance_to

CLUSTERS = 8
SIZE = (224, 336)
"""of photos that lie; 481 x 321 px have about this shape"""


def ways(depth: int) -> list[Way]:
    half = depth // 2
    found = [Way(), Way(reads="superpixels"), Way(size=(168, 252)), Way(size=(168, 252), reads="superpixels")]
    found += [pooled("superpixels", {half: 196}, reads) for reads in ("patches", "tokens")]
    found += [pooled("keys", {half: 196}, reads) for reads in ("patches", "superpixels")]
    return [*found, pooled("grid", {half: 196})]


def border_table(host: Path, model: nn.Module, photos: Sequence[Photo], batch: int) -> Table:
    """A row for each way: F1 and recall of borders, means over photos and the people who drew them."""
    chosen = ways(len(model.encoder.layer))  # type: ignore[union-attr, arg-type]
    scores: dict[Way, np.ndarray] = {}
    for forward in dict.fromkeys(way.forward for way in chosen):
        reads: list[Reads] = [way.reads for way in chosen if way.forward == forward]
        parts: dict[Reads, list[tuple[float, float]]] = {name: [] for name in reads}
        for lies in (True, False):  # a batch is of one shape
            some = [photo for photo in photos if (photo.rgb.shape[1] >= photo.rgb.shape[0]) == lies]
            height, width = (forward.size or SIZE)[:: 1 if lies else -1]
            images = [cv2.resize(photo.rgb, (width, height), interpolation=cv2.INTER_AREA) for photo in some]
            for name, readings in read_all(host, model, forward, reads, Views(images), batch).items():
                parts[name] += [_score(reading, photo.truths) for reading, photo in zip(readings, some)]
        scores |= {way: np.array(parts[way.reads]) for way in chosen if way.forward == forward}
    rows, first = [], scores[chosen[0]]
    for way in chosen:
        gain = (scores[way] - first)[:, 0]
        low, high = of_mean(gain)
        told = "" if way == chosen[0] else f"{gain.mean() * 100:+.1f} ({low * 100:+.1f} .. {high * 100:+.1f})"
        f1, recall = scores[way].mean(0) * 100
        rows.append([way.name, way.tokens, f"{f1:.1f}", told, f"{recall:.1f}"])
    return Table(
        title=f"BSDS500, {len(photos)} photos at {SIZE[0]}x{SIZE[1]} px: borders of {CLUSTERS} clusters of features",
        columns=["way", "tokens", "boundary F1 %", "less or more than the first row", "boundary recall %"],
        rows=rows,
        note=f"k-means on the frozen last features of each image, no labels; borders within {TOLERANCE:.2%} of the "
        "diagonal, means over photos and people; interval of the mean difference over photos (Student's t).",
    )


def _score(reading: Reading, truths: Sequence[np.ndarray]) -> tuple[float, float]:
    """(F1, recall), the means over people."""
    values = reading.values.float().numpy()
    area = np.bincount(reading.regions.ravel(), minlength=len(values)).astype(float)
    means = KMeans(CLUSTERS, n_init=1, random_state=0).fit(values, sample_weight=area).cluster_centers_
    scores = 2 * values @ means.T - (means**2).sum(1)  # the nearest cluster, in a form that may be interpolated
    predicted = reading.painted(torch.from_numpy(scores.astype(np.float32)), truths[0].shape)
    reach = TOLERANCE * np.hypot(*predicted.shape)
    found = distance_to(class_borders(predicted, np.ones(predicted.shape, bool))) <= reach
    f1 = [boundary_f1(predicted, truth, int(truth.max()) + 1) for truth in truths]
    recall = [found[class_borders(truth, np.ones(truth.shape, bool))].mean() for truth in truths]
    return float(np.nanmean(f1)), float(np.nanmean(recall))
