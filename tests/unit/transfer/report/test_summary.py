"""Means over tasks and ranks, against scipy."""

import numpy as np
import pytest
from scipy.stats import rankdata

from transfer.report.charts import radar_figure, transfer_figure
from transfer.report.finished import TransferRun
from transfer.report.logbook import short_name
from transfer.report.summary import group_means, mean_ranks, radar_values, side_by_side, suite_score
from transfer.tasks.result import Result


def row(task: str, value: float, **more) -> Result:
    facts = {"features": "checkpoint", "protocol": "logistic", "low": 0.0, "high": 1.0, "interval": "wilson"}
    facts |= {"chance": 0.1, "num_classes": 10, "num_train": 9, "num_test": 9}
    return Result(**{"task": task, "value": value, **facts, **more})


def test_groups_are_means_over_tasks():
    rows = [row("svhn", 0.2), row("pets", 0.4), row("dmlab", 0.9), row("dmlab", 0.5, protocol="knn")]
    assert group_means(rows) == [
        ("checkpoint", "logistic", "natural", 2, pytest.approx(0.3)),
        ("checkpoint", "logistic", "all tasks", 3, pytest.approx(0.5)),
    ]


def test_ranks_equal_scipy_and_leave_out_what_not_all_have():
    values = np.array([[0.9, 0.5, 0.3], [0.9, 0.6, 0.1], [0.2, 0.7, 0.2]])  # name x task
    rows = [(f"run{i}", row(f"t{j}", v)) for (i, j), v in np.ndenumerate(values)]
    expected = np.mean([rankdata(-values[:, j]) for j in range(3)], 0)
    found = mean_ranks([*rows, ("run0", row("alone", 0.5))])
    assert {name: rank for name, rank, _ in found} == pytest.approx({f"run{i}": r for i, r in enumerate(expected)})
    assert all(count == 3 for *_, count in found)


def test_side_by_side_has_a_row_for_each_run_and_marks_the_best_of_a_task():
    rows = [("a", row("t", 0.5)), ("b", row("t", 0.7)), ("b", row("u", 0.1)), ("a", row("t", 0.2, protocol="knn"))]
    assert side_by_side(rows) == {
        "logistic": [
            ["", "t, top1", "u, top1"],
            ["a", "50.0 % (0.0 - 100.0)", "-"],
            ["b", "**70.0 %** (0.0 - 100.0)", "**10.0 %** (0.0 - 100.0)"],
        ]
    }


def test_radar_has_a_line_for_each_name_with_a_number_on_every_axis():
    rows = [("a", row(f"t{j}", j / 4)) for j in range(4)] + [("b", row("t1", 0.5))]
    tasks, values = radar_values(rows, "logistic")
    assert tasks == ["t0", "t1", "t2", "t3"] and np.isnan(values["b"][0]) and values["a"][3] == 0.75
    (line,) = radar_figure(tasks, values, "x").axes[0].lines
    assert line.get_label() == "a" and line.get_ydata().tolist() == [0.0, 0.25, 0.5, 0.75, 0.0]


def test_a_control_has_the_colour_of_its_run_in_the_radar():
    values = {"a": [0.5] * 3, "a random": [0.1] * 3, "b": [0.4] * 3}
    lines = {line.get_label(): line for line in radar_figure(["x", "y", "z"], values, "x").axes[0].lines}
    own, control, other = (lines[name] for name in values)
    assert own.get_color() == control.get_color() != other.get_color()
    assert (own.get_linestyle(), control.get_linestyle()) == ("-", ":")


def test_one_run_has_bars_and_several_share_a_line_for_each_protocol():
    """Whatever the number of runs, a task has as many lines as protocols, and each run its point beside the line."""

    def run(name: str, value: float) -> TransferRun:
        rows = [row("t", value), row("t", value / 2, features="random"), row("u", value)]
        return TransferRun(name=name, uri="", suite="quick", checkpoint="", rows=rows)

    alone = transfer_figure([run("a", 0.8)])
    assert [len(axes.patches) for axes in alone.axes] == [2, 1]
    assert sorted(patch.get_width() for patch in alone.axes[0].patches) == [0.4, 0.8]
    three = transfer_figure([run("a", 0.8), run("b", 0.6), run("c", 0.4)])
    first = three.axes[0]
    assert not first.patches and len(first.get_yticks()) == 2 == len(alone.axes[0].get_yticks())
    dots = [line for line in first.lines if line.get_marker() == "o"]
    found = sorted((round(float(line.get_ydata()[0])), float(line.get_xdata()[0])) for line in dots)
    assert found == [(0, 0.2), (0, 0.3), (0, 0.4), (1, 0.4), (1, 0.6), (1, 0.8)]
    assert len({float(line.get_ydata()[0]) for line in dots}) == 6
    assert [text.get_text() for text in three.legends[0].get_texts()] == ["a", "b", "c"]


def test_a_suite_score_is_the_mean_of_one_protocol_and_says_which():
    rows = [row("b", 0.5), row("a", 0.7), row("a", 0.9, protocol="knn")]
    assert suite_score(rows) == (pytest.approx(0.6), "mean logistic of a top1, b top1")
    assert suite_score([row("a", 0.9, protocol="knn")]) == (0.9, "mean knn of a top1")
    assert suite_score([row("a", 0.9, features="random")]) is None


def test_a_checkpoint_is_called_by_its_run():
    assert short_name("/data/runs/small/checkpoints/000000160000") == "small at 160,000"
    assert short_name("s3://bucket/best") == "best"
