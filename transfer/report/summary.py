"""Many tasks in one look: means of groups, and ranks of what was measured on the same tasks."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from transfer.tasks.known_tasks import group_of
from transfer.tasks.result import Result

Named = Sequence[tuple[str, Result]]
"""(name of what is compared, result)"""


def group_means(rows: Sequence[Result]) -> list[tuple[str, str, str, int, float]]:
    """(features, protocol, group, tasks, mean): VTAB's three groups and the mean of all tasks, per protocol.

    Means are over tasks (each counts alike). Only what was measured on two tasks or more gets a row.
    """
    found = []
    for kind in dict.fromkeys((row.features, row.label) for row in rows):
        mine = [(group_of(row.task), row.value) for row in rows if (row.features, row.label) == kind]
        for group in ("natural", "specialized", "structured", "all tasks"):
            values = [value for name, value in mine if group in (name, "all tasks")]
            if len(values) > 1:
                found.append((*kind, group, len(values), float(np.mean(values))))
    return found


def suite_score(rows: Sequence[Result]) -> tuple[float, str] | None:
    """(mean over tasks, what it is the mean of): one number of the checkpoint, by the logistic probe, else by kNN, else
    by the dense linear head. None when none of them was measured.
    """
    for protocol in ("logistic", "knn", "linear"):
        mine = [row for row in rows if row.features == "checkpoint" and row.protocol == protocol]
        if mine:
            tasks = ", ".join(sorted(f"{row.task} {row.metric}" for row in mine))
            return float(np.mean([row.value for row in mine])), f"mean {protocol} of {tasks}"
    return None


def mean_ranks(rows: Named) -> list[tuple[str, float, int]]:
    """(name, mean rank, tasks), best first.

    Ranked within each task and protocol in which all names have a number; equal numbers share the mean of their ranks.
    """
    names = dict.fromkeys(name for name, _ in rows)
    ranks = []
    for kind in dict.fromkeys((row.task, row.label, row.metric) for _, row in rows):
        values = {name: row.value for name, row in rows if (row.task, row.label, row.metric) == kind}
        if values.keys() == names.keys() and len(names) > 1:
            ranks.append(rankdata([-values[name] for name in names]))
    means = zip(names, np.mean(ranks, 0).tolist()) if ranks else ()
    return sorted(((name, rank, len(ranks)) for name, rank in means), key=lambda one: one[1::-1])


def side_by_side(rows: Named) -> dict[str, list[list[str]]]:
    """By protocol, a table of those that have a number: a head (what is compared, then tasks), a row for each name.

    A cell is the value with its interval; the best value of a task is bold. Only protocols of two names or more.
    """
    tables = {}
    for label in dict.fromkeys(row.label for _, row in rows):
        mine = {(name, f"{row.task}, {row.metric}"): row for name, row in rows if row.label == label}
        names, tasks = (list(dict.fromkeys(kind)) for kind in zip(*mine, strict=True))
        best = {task: max(row.value for (_, of), row in mine.items() if of == task) for task in tasks}
        if len(names) > 1:
            lines = [[name, *(_cell(mine.get((name, task)), best[task]) for task in tasks)] for name in names]
            tables[label] = [["", *tasks], *lines]
    return tables


def _cell(row: Result | None, best: float) -> str:
    if row is None:
        return "-"
    value = f"{100 * row.value:.1f} %"
    return f"{f'**{value}**' if row.value == best else value} ({100 * row.low:.1f} - {100 * row.high:.1f})"


def radar_values(rows: Named, protocol: str) -> tuple[list[str], dict[str, list[float]]]:
    """Tasks and, for each name, its values of one protocol on them (nan where it was not measured)."""
    found = {(name, row.task): row.value for name, row in rows if row.label == protocol}
    names, tasks = (list(dict.fromkeys(kind)) for kind in zip(*found)) if found else ([], [])
    return tasks, {name: [found.get((name, task), math.nan) for task in tasks] for name in names}
