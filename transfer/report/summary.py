"""Many tasks in one look: means of groups, and ranks of what was measured on the same tasks."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from transfer.tasks.known_tasks import group_of
from transfer.tasks.result import Result


def group_means(rows: Sequence[Result]) -> list[tuple[str, str, str, int, float]]:
    """(features, protocol, group, tasks, mean): VTAB's three groups and the mean of all tasks, per protocol.

    Means are over tasks (each counts alike). Only what was measured on two tasks or more gets a row.
    """
    found = []
    for kind in dict.fromkeys((row.features, row.label) for row in rows):
        mine = [row for row in rows if (row.features, row.label) == kind]
        groups = {
            name: [r for r in mine if group_of(r.task) == name] for name in ("natural", "specialized", "structured")
        }
        for name, members in {**groups, "all tasks": mine}.items():
            if len(members) > 1:
                found.append((*kind, name, len(members), float(np.mean([row.value for row in members]))))
    return found


def suite_score(rows: Sequence[Result]) -> tuple[float, str] | None:
    """(mean over tasks, what it is the mean of): one number of the checkpoint, by the logistic probe, else by kNN, else
    by the dense linear head. None when none of them was measured.
    """
    own = [row for row in rows if row.features == "checkpoint"]
    for protocol in ("logistic", "knn", "linear"):
        mine = sorted((row for row in own if row.protocol == protocol), key=lambda row: row.task)
        if mine:
            tasks = ", ".join(f"{row.task} {row.metric}" for row in mine)
            return float(np.mean([row.value for row in mine])), f"mean {protocol} of {tasks}"
    return None


def mean_ranks(rows: Sequence[tuple[str, Result]]) -> list[tuple[str, float, int]]:
    """(name, mean rank, tasks), best first; `rows` are (name of what is compared, result).

    Ranked within each task and protocol in which all names have a number; equal numbers share the mean of their ranks.
    """
    names = list(dict.fromkeys(name for name, _ in rows))
    ranks: dict[str, list[float]] = {name: [] for name in names}
    for kind in dict.fromkeys((row.task, row.label, row.metric) for _, row in rows):
        values = {name: row.value for name, row in rows if (row.task, row.label, row.metric) == kind}
        if set(values) != set(names) or len(names) < 2:
            continue
        for name, rank in zip(values, rankdata([-value for value in values.values()])):
            ranks[name].append(float(rank))
    known = [(name, float(np.mean(found)), len(found)) for name, found in ranks.items() if found]
    return sorted(known, key=lambda one: (one[1], one[0]))


def side_by_side(rows: Sequence[tuple[str, Result]]) -> dict[str, list[list[str]]]:
    """By protocol, a table of those that have a number: a head (what is compared, then tasks), a row for each name.

    A cell is the value with its interval; the best value of a task is bold. Only protocols of two names or more.
    """
    tables = {}
    for label in dict.fromkeys(row.label for _, row in rows):
        mine = {(name, f"{row.task}, {row.metric}"): row for name, row in rows if row.label == label}
        names, tasks = (list(dict.fromkeys(kind)) for kind in zip(*mine, strict=True))
        if len(names) < 2:
            continue
        best = {task: max(row.value for (_, of), row in mine.items() if of == task) for task in tasks}
        tables[label] = [["", *tasks]]
        for name in names:
            found = [(mine.get((name, task)), best[task]) for task in tasks]
            tables[label].append([name, *("-" if row is None else _cell(row, value) for row, value in found)])
    return tables


def _cell(row: Result, best: float) -> str:
    value = f"{100 * row.value:.1f} %"
    return f"{f'**{value}**' if row.value == best else value} ({100 * row.low:.1f} - {100 * row.high:.1f})"


def radar_values(rows: Sequence[tuple[str, Result]], protocol: str) -> tuple[list[str], dict[str, list[float]]]:
    """Tasks and, for each name, its values of one protocol on them (nan where it was not measured)."""
    mine = [(name, row) for name, row in rows if row.label == protocol]
    tasks = list(dict.fromkeys(row.task for _, row in mine))
    names = list(dict.fromkeys(name for name, _ in mine))
    table = {(name, row.task): row.value for name, row in mine}
    return tasks, {name: [table.get((name, task), math.nan) for task in tasks] for name in names}
