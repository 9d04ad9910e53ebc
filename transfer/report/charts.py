"""Figures of finished runs: curves of trainings, bars with intervals of transfer results."""

from typing import TYPE_CHECKING

import numpy as np

from .finished import TrainingRun, TransferRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.projections.polar import PolarAxes

_COLOURS = ("#2b6cb0", "#dd6b20", "#2f855a", "#c53030", "#6b46c1", "#4a5568", "#b7791f", "#0987a0")
_HATCH = {"checkpoint": "", "random": "///", "pixels": "...", "colour": "..."}
_BOUND = "#cbd5e0"  # what the regions allow at best is a bound, not a result


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def curves_figure(runs: list[TrainingRun]) -> "Figure":
    """Loss and top-1 against samples seen, one colour per run, training thin and validation thick."""
    from matplotlib.ticker import EngFormatter

    figure = _figure(11, 4.2)
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "top1")):
        for number, run in enumerate(runs):
            colour = _COLOURS[number % len(_COLOURS)]
            for part, width in (("train", 0.9), ("val", 2.2)):
                points = np.array(run.curves.get(f"{part}/{quantity}", []))
                if len(points):
                    label = run.name if part == "val" else None
                    marker = "o" if part == "val" else None
                    axes.plot(*points.T, color=colour, linewidth=width, label=label, marker=marker, markersize=4)
        axes.set(xlabel="samples seen", ylabel=quantity, title=f"{quantity} (thin: training, thick: validation)")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 175k: whole numbers would touch each other
        axes.grid(alpha=0.3)
    figure.axes[1].legend(fontsize=8)
    return figure


def transfer_figure(runs: list[TransferRun]) -> "Figure":
    """One panel per task: a bar per result with its 95 % interval, and chance as a dashed line."""
    rows = [(run, row) for run in runs for row in run.rows]
    tasks = list(dict.fromkeys(row.task for _, row in rows))
    most = max(sum(row.task == task for _, row in rows) for task in tasks)
    figure = _figure(8.5, max(1.8, 0.36 * most + 1.1) * len(tasks))
    for axes, task in zip(np.atleast_1d(figure.subplots(len(tasks), 1)), tasks):
        mine = [(run, row) for run, row in rows if row.task == task][::-1]
        for place, (run, row) in enumerate(mine):
            colour = _BOUND if row.features == "oracle" else _COLOURS[runs.index(run) % len(_COLOURS)]
            axes.barh(place, row.value, color=colour, alpha=0.75, hatch=_HATCH.get(row.features, ""), edgecolor="white")
            if np.isfinite([row.low, row.high]).all():
                reach = [[max(0.0, row.value - row.low)], [max(0.0, row.high - row.value)]]
                axes.errorbar(row.value, place, xerr=reach, color="black", capsize=3, linewidth=1)
            end = row.high if np.isfinite(row.high) else row.value
            axes.text(max(row.value, end) + 0.012, place, f"{row.value:.1%}", va="center", fontsize=8)
        names = [f"{run.name}: {row.label}" * (len(runs) > 1) or row.label for run, row in mine]
        marks = ["" if row.features == "checkpoint" else f" ({row.features})" for _, row in mine]
        axes.set_yticks(range(len(mine)), [name + mark for name, mark in zip(names, marks)], fontsize=8)
        chance = mine[0][1].chance
        axes.axvline(chance, color="black", linestyle="--", linewidth=1)
        axes.set(title=f"{task} (dashed: chance {chance:.1%})", xlim=(0, 1.1), xlabel=mine[0][1].metric)
        axes.set_xticks(np.linspace(0, 1, 6))
    return figure


def radar_figure(tasks: list[str], values: dict[str, list[float]], title: str) -> "Figure":
    """One axis per task from 0 to 1, a closed line for each name that has a number on all. For three tasks or more."""
    figure = _figure(6, 5.4)
    axes: PolarAxes = figure.add_subplot(projection="polar")  # type: ignore[assignment]
    angles = np.linspace(0, 2 * np.pi, len(tasks), endpoint=False)
    whole = {name: row for name, row in values.items() if np.isfinite(row).all()}
    for number, (name, row) in enumerate(whole.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        closed = [*row, row[0]]
        axes.plot([*angles, angles[0]], closed, color=colour, label=name, linewidth=1.6, marker="o", markersize=3)
        axes.fill([*angles, angles[0]], closed, color=colour, alpha=0.08)
    axes.set_theta_offset(np.pi / 2)
    axes.set_xticks(angles, tasks, fontsize=9)
    axes.tick_params(axis="x", pad=12)
    axes.set_ylim(0, 1)
    axes.set_title(title)
    axes.legend(fontsize=8, loc="lower right", bbox_to_anchor=(1.15, -0.1))
    return figure
