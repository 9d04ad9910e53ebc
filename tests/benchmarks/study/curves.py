"""The picture of the study: for each set, curves against samples and against compute, and top-1 against throughput."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from focusvit.predict.pictures import figure_pixels
from tests.benchmarks.study.ledger import by_row, lighter_scores, of_one_commit
from tests.benchmarks.study.matrix import LIGHTER, PLAIN, SETS, core_rows, with_lighter
from tests.benchmarks.study.speed import speedups

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = (
    "#4a5568",
    "#c53030",
    "#6b46c1",
    "#2b6cb0",
    "#2f855a",
    "#a0aec0",
    "#b7791f",
    "#0987a0",
    "#d53f8c",
    "#744210",
    "#000000",
    "#68d391",
)


def picture(records: Sequence[dict[str, Any]], place: Path) -> None:
    """One line of three panels a set, as a JPEG."""
    from matplotlib.figure import Figure

    sets = [name for name in SETS if any((r["set"], r["stage"]) == (name, "core") for r in records)]
    figure = Figure(figsize=(15, 4.6 * len(sets)), dpi=90, layout="constrained")
    for line, name in zip(figure.subplots(len(sets), 3, squeeze=False), sets):
        of_set = [record for record in records if record["set"] == name]
        rows = by_row([record for record in of_set if record["stage"] == "core"])
        colours = dict(zip(core_rows(SETS[name]), _COLOURS, strict=True))  # the same in every set
        _curves(line[0], rows, colours, against="samples")
        _curves(line[1], rows, colours, against="compute")
        _speeds(line[2], rows, colours, of_set)
        line[0].set_title(name)
        line[0].legend(fontsize=8)
    Image.fromarray(figure_pixels(figure)).save(place, quality=88)


def _curves(axes: "Axes", rows: dict[str, list[dict[str, Any]]], colours: dict[str, str], against: str) -> None:
    """Top-1 of the first seed of every row, at each scored point of its training."""
    for row, found in rows.items():
        one = found[0]
        unit = one["multiply_adds"] / 1e15 if against == "compute" else 1 / 1e6
        at = [point["samples"] * unit for point in one["curve"]]
        axes.plot(at, [100 * point["top1"] for point in one["curve"]], color=colours[row], label=row)
    told = "million training samples" if against == "samples" else "compute: 10^15 multiply-adds of forwards"
    axes.set(xlabel=told, ylabel="top-1, %")
    axes.grid(alpha=0.3)


def _speeds(
    axes: "Axes",
    rows: dict[str, list[dict[str, Any]]],
    colours: dict[str, str],
    records: Sequence[dict[str, Any]],
) -> None:
    """Top-1 at the end against throughput relative to the plain ViT: filled with superpixels, hollow without, triangles
    with lighter ones."""
    stages = {name: [record for record in records if record["stage"] == name] for name in ("core", "speed", "lighter")}
    found = [speedups(record) for record in of_one_commit(stages["speed"])]
    lighter = lighter_scores(stages["core"], stages["lighter"])
    for row, records in rows.items():
        costs = [speeds[row] for speeds in found if row in speeds]
        if not costs:
            continue
        top1 = 100 * statistics.mean(record["scores"]["top1"] for record in records)
        bare, whole = (statistics.median(getattr(cost, which) for cost in costs) for which in ("bare", "whole"))
        axes.plot([whole, bare], [top1, top1], color=colours[row], linewidth=0.8)
        axes.plot(bare, top1, "o", color=colours[row], markerfacecolor="white")
        axes.plot(whole, top1, "o", color=colours[row])
        for name in (with_lighter(row, told) for told in LIGHTER):
            speeds = [each[name].whole for each in found if name in each]
            if name in lighter and speeds:
                score = 100 * statistics.mean(lighter[name].values())
                axes.plot(statistics.median(speeds), score, "^", color=colours[row], markersize=5)
    told = "filled: with superpixels; triangles: lighter ones"
    axes.set(xlabel=f"throughput relative to {PLAIN}\n{told}", ylabel="top-1, %")
    axes.axvline(2.1, color="black", linestyle=":", linewidth=0.8)
    axes.grid(alpha=0.3)
