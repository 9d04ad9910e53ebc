"""Figures of finished runs: curves of trainings, bars with intervals of transfer results."""

from typing import TYPE_CHECKING

import numpy as np

from transfer.tasks.result import Result

from .finished import TrainingRun, TransferRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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
    """One panel per task, results with their 95 % intervals, and chance as a dashed line: bars of one run; of several
    a point each, on one line for all runs.
    """
    rows = [row for run in runs for row in run.rows]
    tasks = list(dict.fromkeys(row.task for row in rows))
    lines = {task: list(dict.fromkeys(_line(row) for row in rows if row.task == task)) for task in tasks}
    most = max(len(labels) for labels in lines.values())
    figure = _figure(8.5, max(1.8, (0.26 + 0.1 * len(runs)) * most + 1.1) * len(tasks))
    for axes, (task, labels) in zip(np.atleast_1d(figure.subplots(len(tasks), 1)), lines.items()):
        for number, run in enumerate(runs):
            for row in (row for row in run.rows if row.task == task):
                place = len(labels) - 1 - labels.index(_line(row)) + _shift(number, len(runs))
                _result(axes, row, place, _COLOURS[number % len(_COLOURS)], bar=len(runs) == 1)
        axes.set_yticks(range(len(labels)), labels[::-1], fontsize=8)
        axes.set_ylim(-0.6, len(labels) - 0.4)
        first = next(row for row in rows if row.task == task)
        axes.axvline(first.chance, color="black", linestyle="--", linewidth=1)
        axes.set(title=f"{task} (dashed: chance {first.chance:.1%})", xlim=(0, 1.1), xlabel=first.metric)
        axes.set_xticks(np.linspace(0, 1, 6))
        if len(runs) > 1:
            axes.grid(axis="x", alpha=0.3)
    if len(runs) > 1:
        from matplotlib.lines import Line2D

        marks = [Line2D([], [], color=_COLOURS[n % len(_COLOURS)], marker="o", linestyle="") for n in range(len(runs))]
        figure.legend(marks, [run.name for run in runs], loc="outside upper center", ncols=2, fontsize=8)
    return figure


def _line(row: Result) -> str:
    return row.label if row.features == "checkpoint" else f"{row.label} ({row.features})"


def _shift(number: int, count: int) -> float:
    """Of a run's points from their line: the first run highest."""
    return 0.0 if count == 1 else 0.35 - 0.7 * number / (count - 1)


def _result(axes: "Axes", row: Result, place: float, colour: str, *, bar: bool) -> None:
    colour = _BOUND if row.features == "oracle" else colour
    if bar:
        axes.barh(place, row.value, color=colour, alpha=0.75, hatch=_HATCH.get(row.features, ""), edgecolor="white")
    else:
        axes.plot(row.value, place, "o", color=colour, markersize=3)
    if np.isfinite([row.low, row.high]).all():
        reach = [[max(0.0, row.value - row.low)], [max(0.0, row.high - row.value)]]
        line = ("black", 3, 1.0) if bar else (colour, 0, 0.8)
        axes.errorbar(row.value, place, xerr=reach, color=line[0], capsize=line[1], linewidth=line[2])
    if bar:
        end = row.high if np.isfinite(row.high) else row.value
        axes.text(max(row.value, end) + 0.012, place, f"{row.value:.1%}", va="center", fontsize=8)


def radar_figure(tasks: list[str], values: dict[str, list[float]], title: str) -> "Figure":
    """One axis per task from 0 to 1, a closed line for each name that has a number on all. For three tasks or more."""
    figure = _figure(6, 5.4 + 0.1 * len(values))
    axes: PolarAxes = figure.add_subplot(projection="polar")  # type: ignore[assignment]
    angles = np.linspace(0, 2 * np.pi, len(tasks), endpoint=False)
    whole = {name: row for name, row in values.items() if np.isfinite(row).all()}
    runs = [name for name in whole if name.rpartition(" ")[0] not in whole]
    for name, row in whole.items():
        own = name in runs  # else it is the control of a run: 'NAME random'
        colour = _COLOURS[runs.index(name if own else name.rpartition(" ")[0]) % len(_COLOURS)]
        closed = [*row, row[0]]
        around, style = [*angles, angles[0]], "-" if own else ":"
        axes.plot(around, closed, style, color=colour, label=name, linewidth=1.6, marker="o", markersize=3)
        axes.fill(around, closed, color=colour, alpha=0.08)
    axes.set_theta_offset(np.pi / 2)
    axes.set_xticks(angles, tasks, fontsize=9)
    axes.tick_params(axis="x", pad=12)
    axes.set_ylim(0, 1)
    axes.set_title(title)
    figure.legend(fontsize=8, loc="outside lower center", ncols=2)
    return figure
