"""The tables and the picture of `bench objects`: what was attended to beside what there was to see."""

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from focusvit.predict.pictures import density_overlay, labelled_sheet, outlined
from focusvit.score.intervals import of_mean, over_draws
from tests.benchmarks.model.attended import best_regions, by_area, density, mass_inside, overlap_at_area, pointing
from tests.benchmarks.report import Table
from tests.benchmarks.transfer.object_scenes import SIDE, Scenes

Figures = dict[str, float]
_FIGURES = ("token", "pixel", "mass", "overlap")
_HEADINGS = ("top token", "top pixel", "attention on the object", "overlap (IoU)")
_PICTURED = 6


@dataclass(kw_only=True)
class ReaderFigures:
    """One reader of one model: its figures by seed, trained and not, and those of its regions without a model."""

    title: str
    regions: np.ndarray
    """integer (N, 64, 64)"""
    weights: np.ndarray
    """(N, T) of the first seed, for the picture"""
    trained: list[Figures] = field(default_factory=list)
    untrained: list[Figures] = field(default_factory=list)
    alike: Figures | None = None


def agreement(weights: np.ndarray, regions: np.ndarray, masks: np.ndarray) -> Figures:
    """Mean figures of token weights (N, T) on region maps and masks (N, 64, 64).

    token, pixel: the pointing game, for the token with the largest weight and for the pixel with the largest weight
    per area; mass: share of the attention on the object; overlap: IoU of the object and as many most attended pixels;
    best: the same of an observer who knows each region's share of the object.
    """
    found: dict[str, list[float]] = {name: [] for name in (*_FIGURES, "best")}
    for row, spread, region_map, mask in zip(weights, density(weights, regions), regions, masks):
        found["token"].append(pointing(row[region_map], mask))
        found["pixel"].append(pointing(spread, mask))
        found["mass"].append(mass_inside(spread, mask))
        found["overlap"].append(overlap_at_area(spread, mask))
        found["best"].append(overlap_at_area(best_regions(region_map, mask), mask))
    return {name: float(np.mean(values)) for name, values in found.items()}


def references(masks: np.ndarray) -> dict[str, Figures]:
    """What needs no model: uniform attention, which is chance, and attention that falls off from the image's centre."""
    pixels = np.broadcast_to(np.arange(SIDE * SIDE).reshape(SIDE, SIDE), masks.shape)
    away = ((np.arange(SIDE) + 0.5) / SIDE - 0.5) ** 2
    bell = np.exp(-(away[:, None] + away[None]) / (2 * 0.25**2)).ravel()
    shape = (len(masks), SIDE * SIDE)
    return {
        "uniform attention (chance)": agreement(np.ones(shape), pixels, masks),
        "the image's centre": agreement(np.broadcast_to(bell, shape), pixels, masks),
    }


def figures(title: str, rows: list[ReaderFigures], masks: np.ndarray, note: str) -> Table:
    """Every reader trained, untrained and, once a model, its regions with equal weights."""
    lines = []
    for name, found in references(masks).items():
        lines.append([name, "-", *(f"{found[figure]:.1%}" for figure in _FIGURES), "-"])
    for row in rows:
        for name, seeds in ((row.title, row.trained), (f"{row.title}; untrained", row.untrained)):
            top1 = _spread([seed["top1"] for seed in seeds]) if "top1" in seeds[0] else "-"
            cells = [_spread([seed[figure] for seed in seeds]) for figure in _FIGURES]
            lines.append([name, top1, *cells, f"{seeds[0]['best']:.1%}"])
        if row.alike is not None:
            cells = [f"{row.alike[figure]:.1%}" for figure in _FIGURES]
            lines.append([f"{row.title}; no model, tokens alike", "-", *cells, f"{row.alike['best']:.1%}"])
    note += (
        " Attention of the class token to tokens in the last layer (LLA: in the last read), mean of heads. Top token: "
        "share of the most attended token's pixels on the object (pointing game; chance is the object's share of the "
        "image). Top pixel: the same for the most attended pixel when each token's weight is spread over its pixels; "
        "small regions win where tokens are alike. Overlap: of the object and as many most attended pixels. Best "
        "overlap: with each region's true share instead of attention. In brackets: 95 % intervals of the mean over "
        "seeds, Student's t."
    )
    return Table(
        title=f"{title}: attention and masks", columns=("attention of", "top-1", *_HEADINGS, "best overlap"),
        rows=lines, note=note,
    )  # fmt: skip


def differences(title: str, rows: list[ReaderFigures]) -> Table:
    """What training changed, and what the tokens change against those of the first row; both paired by seed."""
    first, lines = rows[0], []
    for row in rows:
        gains = [_gain(row.trained, row.untrained, figure) for figure in _FIGURES]
        against = [_gain(row.trained, first.trained, figure) for figure in ("mass", "overlap")]
        lines.append([row.title, *gains, *(["-", "-"] if row is first else against)])
    other = f"minus {first.title}"
    columns = ("attention of", *_HEADINGS, f"attention on the object {other}", f"overlap {other}")
    note = (
        "Points. The first four columns: trained minus untrained, same seed; the last two: against the trained "
        f"{first.title} of the same seed. 95 % intervals of the mean difference, Student's t; one that holds 0 shows "
        "no difference."
    )
    return Table(title=f"{title}: what training changed", columns=columns, rows=lines, note=note)


def picture(path: Path, rows: list[ReaderFigures], scenes: Scenes) -> None:
    """A sheet of some scenes, a row each: the image with its object outlined, then what every reader attends to.

    Weights are divided by the area of their region; the brightest colour is each picture's own maximum.
    """
    cells: list[tuple[str, np.ndarray]] = []
    for number in np.linspace(0, len(scenes.masks) - 1, _PICTURED).round().astype(int):
        cells.append(("object", outlined(scenes.images[number], scenes.masks[number].astype(np.int64))))
        for row in rows:
            each = by_area(row.weights[number], row.regions[number])
            cells.append((row.title, density_overlay(scenes.images[number], row.regions[number], each, each.max())))
    sheet = labelled_sheet(cells, "", columns=1 + len(rows))
    encoded = cv2.imencode(".jpg", sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 75])[1]
    path.write_bytes(encoded.tobytes())


def _spread(values: list[float]) -> str:
    low, high = over_draws(values)
    mean = f"{np.mean(values):.1%}"
    return mean if len(values) < 2 else f"{mean} ({100 * low:.1f} .. {100 * high:.1f})"


def _gain(seeds: list[Figures], others: list[Figures], figure: str) -> str:
    values = [100 * (seed[figure] - other[figure]) for seed, other in zip(seeds, others)]
    low, high = of_mean(values)
    return f"{np.mean(values):+.1f}" if len(values) < 2 else f"{np.mean(values):+.1f} ({low:+.1f} .. {high:+.1f})"
