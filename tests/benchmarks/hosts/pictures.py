"""Pictures of `bench hosts`: painted frames, and score against measured speed for every table that is there
(`bench hosts-picture`)."""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from focusvit.predict.pictures import labelled_sheet
from tests.benchmarks.hosts.dense import CLASSES, by_drive, confusion, head_of, truth_of
from tests.benchmarks.hosts.images import Sample, whole
from tests.benchmarks.hosts.readings import read_all
from tests.benchmarks.hosts.states import views_of
from tests.benchmarks.hosts.ways import Way, pooled
from tests.benchmarks.report import RESULTS

# sky, building, pole, road, pavement, tree, sign, fence, car, pedestrian, bicyclist, void
_COLOURS = np.array(
    [
        (128, 180, 230), (150, 60, 60), (250, 220, 90), (110, 70, 130), (220, 150, 200), (90, 140, 50), (240, 120, 30),
        (120, 90, 60), (50, 60, 180), (230, 40, 60), (40, 200, 200), (0, 0, 0),
    ], np.uint8,
)  # fmt: skip
TUNED = ("hosts-scenes-tuned", "hosts-scenes-tuned-pixels", "hosts-scenes-tuned-132")
"""records of one table, each a run of its own: scores are drawn together, at speeds of `SPEEDS`"""
SPEEDS = ("hosts-speed", "hosts-speed-168")
"""records that only time, to the whole host in the same run"""
_TOLD = {"px": "fewer pixels", "superpixels": "regions by colour", "keys": "regions by the host's keys"}
_KINDS = {
    "all patches": "black", "px": "tab:gray", "superpixels": "tab:red", "keys": "tab:orange", "grid": "tab:blue",
    "token merging": "tab:green",
}  # fmt: skip


def painted_frames(
    host: Path, model: nn.Module, size: tuple[int, int], samples: Sequence[Sample], batch: int
) -> np.ndarray:
    """uint8 RGB: the middle frame of each drive, its truth, and what heads that never saw the drive make of it."""
    half = len(model.encoder.layer) // 2  # type: ignore[union-attr, arg-type]
    chosen = [Way(), Way(reads="superpixels"), pooled("superpixels", {half: 196}, "tokens")]
    chosen += [pooled("keys", {half: 196}, "superpixels"), pooled("grid", {half: 196})]
    views = views_of(host, model, [whole(sample, size) for sample in samples], [half], batch)
    splits = by_drive(samples)
    shown = [split.test[len(split.test) // 2] for split in splits]
    rows: list[list[tuple[str, np.ndarray]]] = []
    for at in shown:
        truth = truth_of(samples[at])
        photo = np.asarray(Image.open(samples[at].path).convert("RGB"))
        rows.append([("a frame", photo), ("truth", _COLOURS[np.minimum(truth, CLASSES)])])
    for way in chosen:
        readings = read_all(host, model, way.forward, [way.reads], views, batch)[way.reads]
        for split, at, row in zip(splits, shown, rows):
            weights = head_of([readings[n] for n in split.train], [samples[n] for n in split.train])
            matrix, truth = torch.from_numpy(weights).float(), truth_of(samples[at])
            scores = readings[at].values.float() @ matrix[:-1] + matrix[-1]
            painted = np.where(truth < CLASSES, readings[at].painted(scores, truth.shape), CLASSES)
            _, border = confusion(readings[at], scores, truth)
            row.append((f"{way.name}: borders {border:.0%}", _COLOURS[painted]))
    cells = [cell for row in rows for cell in row]
    return labelled_sheet(cells, "CamVid, each drive unseen by its head", columns=len(rows[0]), cell_px=300)


def main(argv: list[str]) -> int:
    """Draw results/hosts.jpg off the records results/hosts-*.json; the fine-tuned scenes take their speeds from
    records that only time, as each record of theirs timed within its own run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    paths = [
        path
        for path in sorted(RESULTS.glob("hosts-*.json"))
        if path.stem not in (*TUNED, *SPEEDS) and "-seed-" not in path.stem
    ]
    tables = by_title([table for path in paths for table in _told(path)])
    parts = [table for name in TUNED for table in _told(RESULTS / f"{name}.json")]
    tables.append(together(parts, [table for name in SPEEDS for table in _tables(RESULTS / f"{name}.json")]))
    columns = min(2, len(tables))
    rows = -(-len(tables) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(6 * columns, 4.6 * rows), squeeze=False)
    for axis in axes.flat[len(tables) :]:
        axis.axis("off")
    for axis, table in zip(axes.flat, tables):
        for row in points(table):
            axis.plot(row["speed"], row["score"], row["mark"], color=row["colour"], markersize=6)
        after = ", after fine-tuning" if "fine-tuning" in table["title"] else ", frozen"
        name, _, rest = table["title"].partition(": ")
        axis.set_title(f"{name}: {rest.split(',')[0]}{after}", fontsize=9)  # with the size of the input
        axis.set_xlabel("measured speed, the whole host = 1", fontsize=8)
        axis.set_ylabel(table["score"], fontsize=8)
        axis.grid(alpha=0.3)
    marks = [
        pyplot.Line2D([], [], color=colour, marker="o", linestyle="", label=_TOLD.get(kind, kind))
        for kind, colour in _KINDS.items()
    ]
    marks.append(
        pyplot.Line2D([], [], color="black", marker="^", linestyle="", label="painted or read over superpixels")
    )
    figure.legend(handles=marks, loc="lower center", ncols=len(marks), fontsize=9)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(RESULTS / "hosts.jpg", dpi=80)
    sys.stdout.write(f"hosts-picture: wrote {RESULTS / 'hosts.jpg'}\n")
    return 0


def by_title(tables: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tables of the same images, made by several runs, as one: each row from the first run that has it."""
    found: dict[str, dict[str, Any]] = {}
    for table in tables:
        into = found.setdefault(table["title"], {**table, "rows": []})
        if table["columns"] != into["columns"]:
            raise ValueError(f"two records of '{table['title']}' have other columns: measure them anew")
        known = {row[0] for row in into["rows"]}
        into["rows"] += [row for row in table["rows"] if row[0] not in known]
    return list(found.values())


def _tables(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text())["tables"]


def together(parts: Sequence[dict[str, Any]], timed: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One table of all rows of `parts`, a way once, with the speeds of the `timed` tables in place of their own.

    How a way is read at the end is not timed there: a row costs what its way does, times the share by which it cost
    more than the way in the run of its own part. Raises KeyError for a way that no table timed.
    """
    speeds: dict[str, float] = {}
    for table in timed:
        column = table["columns"].index("speed")
        for row in table["rows"]:
            speeds.setdefault(_way(row[0]), float(row[column].rstrip("x")))
    rows: dict[str, list[str]] = {}
    for table in parts:
        score, cost = (table["columns"].index(name) for name in (table["score"], "CPU ms a frame"))
        own = {row[0]: float(row[cost]) for row in table["rows"]}
        ways = {_way(name): spent for name, spent in reversed(own.items())}  # the first row of a way is the way itself
        for row in table["rows"]:
            speed = speeds[_way(row[0])] * ways[_way(row[0])] / own[row[0]]
            rows.setdefault(row[0], [row[0], row[score], f"{speed:.2f}x"])
    first = parts[0]
    return {
        "title": first["title"], "score": first["score"], "columns": ["way", first["score"], "speed"],
        "rows": list(rows.values()),
    }  # fmt: skip


def _way(name: str) -> str:
    """The name of a row without how it is read at the end."""
    return re.sub(r", (painted|read over .*)$", "", name)


def _told(path: Path) -> list[dict[str, Any]]:
    """The tables of a record that have a speed, with the name of their score."""
    found = []
    for table in _tables(path):
        score = next((name for name in ("mIoU %", "fine-tuned", "kNN") if name in table["columns"]), None)
        if score and "speed" in table["columns"]:
            found.append({**table, "score": score})
    return found


def points(table: dict[str, Any]) -> list[dict[str, Any]]:
    """Speed, score, colour and mark of each row."""
    speed, score = (table["columns"].index(name) for name in ("speed", table["score"]))
    found = []
    for row in table["rows"]:
        kind = next(
            name for name in _KINDS if row[0].startswith(name) or (name == "px" and re.match(r"\d+x\d+ px", row[0]))
        )
        number = float(re.match(r"[\d.]+", str(row[score]))[0])  # type: ignore[index]
        painted = "painted" in row[0] or "read over" in row[0]
        found.append(
            {
                "speed": float(row[speed].rstrip("x")),
                "score": number,
                "colour": _KINDS[kind],
                "mark": "^" if painted else "o",
            }
        )
    return found
