"""A suite in the tracker: the suite is a run, every task x features x protocol is its child."""

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from focusvit.predict.pictures import confusion_figure, labelled_sheet, read_png
from focusvit.runs.checkpoint import Checkpoint
from focusvit.runs.pyfunc import Scored, register
from focusvit.runs.tracker import Point, Tracker
from pipeline.io import storage
from transfer.tasks.result import Result
from transfer.tasks.spec import Outcome

from .charts import radar_figure, transfer_figure
from .finished import TransferRun
from .summary import group_means, mean_ranks, radar_values, suite_score
from .table import COLUMNS, cells, markdown

log = logging.getLogger(__name__)


def suite_run(
    tracking_uri: str, experiment: str, suite: str, checkpoint: Checkpoint, params: dict[str, str]
) -> Tracker:
    """The suite's own run, started. Raises UsageError when the store cannot be used: before any work is done."""
    tags = {
        "focusvit.kind": "transfer", "suite": suite, "checkpoint": checkpoint.uri,
        "mlflow.source.name": "focusvit transfer",
    }  # fmt: skip
    if checkpoint.run_id:
        tags["checkpoint_run_id"] = checkpoint.run_id
    parent = Tracker.open(tracking_uri, experiment, f"{suite} suite of {short_name(checkpoint.uri)}", tags=tags)
    parent.params({**params, "samples_seen": checkpoint.samples_seen})
    return parent


class Logbook:
    """Writes outcomes as they come, below the suite's run. Only the process that drives the suite writes, as sqlite
    needs."""

    def __init__(self, parent: Tracker, experiment: str, checkpoint: Checkpoint) -> None:
        self._parent, self._experiment, self._checkpoint = parent, experiment, checkpoint
        self._started_ms = int(time.time() * 1000)
        self.problems: list[str] = []

    def add(self, outcome: Outcome) -> None:
        """One child run for each protocol of the task, closed at once. A store that fails now costs no result."""
        if outcome.rows:
            with self._survived():
                self._parent.dataset(outcome.task.name, outcome.data_identity, outcome.task.uri, context="test")
        for name in dict.fromkeys((row.features, row.protocol) for row in outcome.rows):
            rows = [row for row in outcome.rows if (row.features, row.protocol) == name]
            with self._survived():
                self._child(outcome, rows)

    @contextlib.contextmanager
    def _survived(self) -> Iterator[None]:
        """What the tracker refuses is counted and said at the end: results are on disk, hours may lie behind them."""
        try:
            yield
        except Exception as error:
            log.warning("the tracking store %s refused a part of the suite: %s", self._parent.uri, error)
            self.problems.append(str(error).splitlines()[0])

    def _child(self, outcome: Outcome, rows: list[Result]) -> None:
        first = rows[0]
        tags = {
            "focusvit.kind": "transfer task", "task": first.task, "protocol": first.protocol, "features": first.features
        }  # fmt: skip
        name = f"{first.task} {first.protocol}" + ("" if first.features == "checkpoint" else f" ({first.features})")
        with Tracker.open(
            self._parent.uri, self._experiment, name, parent_run_id=self._parent.run_id, tags=tags
        ) as child:
            chosen = {f"{row.variant} {key}".strip(): value for row in rows for key, value in row.chosen.items()}
            facts = ("metric", "interval", "num_train", "num_test", "num_classes")
            child.params(
                {_key(name): value for name, value in chosen.items()}
                | {name: getattr(first, name) for name in facts}
                | {"train_split": outcome.task.train, "test_split": outcome.task.test}
            )
            child.dataset(first.task, outcome.data_identity, outcome.task.uri, context="test")
            now, step = int(time.time() * 1000), self._checkpoint.samples_seen
            values: dict[str, float] = {"chance": first.chance, "fit_s": first.fit_s}
            for row in rows:
                prefix = f"{row.variant}/" if row.variant else ""
                values |= {f"{prefix}{key}": value for key, value in row.scores.items()}
                if np.isfinite([row.low, row.high]).all():
                    values |= {f"{prefix}{row.metric}_low": row.low, f"{prefix}{row.metric}_high": row.high}
            child.metrics([(_key(key), step, value, now) for key, value in values.items()])
            self._pictures(child, rows[-1])
            painted = [("", read_png(place)) for place in rows[0].pictures]
            for number, (_, picture) in enumerate(painted):
                child.image(picture, f"masks/{number:03d}")
            if painted:
                child.image(labelled_sheet(painted, "", columns=2, cell_px=painted[0][1].shape[1]), "masks/all")

    def _pictures(self, child: Tracker, row: Result) -> None:
        """Confusion matrix and per-class table; baselines do without."""
        if row.features != "checkpoint" or not row.confusion:
            return
        shown = counts = np.array(row.confusion)
        title = f"{row.task}, {row.label}: {row.value:.1%} {row.metric}"
        if row.metric == "miou":  # millions of pixels do not fit into a cell
            shown = np.rint(100 * counts / np.maximum(1, counts.sum(1, keepdims=True))).astype(int)
            title += " (%)"
        child.figure(confusion_figure(shown, row.classes, title=title), "scores/confusion_matrix")
        name = "iou" if row.metric == "miou" else "share_right"
        child.table({"class": row.classes, name: row.per_class, "num_test": counts.sum(1).tolist()}, "scores/per_class")

    def register(self, name: str, outcomes: list[Outcome]) -> str:
        """Register the checkpoint's model with its mean score; a line that says whether it is the best of its name."""
        found = suite_score([row for outcome in outcomes for row in outcome.rows])
        if found is None:
            return f"not registered as {name}: no kNN or logistic score of the checkpoint was measured"
        with self._survived():
            scored = [Scored(self._points(one.rows), one.task.name, one.data_identity) for one in outcomes]
            return register(self._parent, name, self._checkpoint.uri, *found, scored)
        return f"not registered as {name}"

    def close(self, outcomes: list[Outcome], out: str, failed: bool = False) -> None:
        """The table and one metric per row on the suite's own run, and what failed. `failed`: nothing was measured, and
        the run says so by its state."""
        with self._survived():
            self._summarise(outcomes, out)
        if failed:
            with self._survived():
                self._parent.finish("FAILED")

    def _summarise(self, outcomes: list[Outcome], out: str) -> None:
        rows = [row for outcome in outcomes for row in outcome.rows]
        self._parent.table(_columns(COLUMNS, [cells(row) for row in rows]), "tables/results")
        self._overview(rows)
        now, step = self._started_ms, self._checkpoint.samples_seen
        self._parent.metrics(self._points(rows))
        score = suite_score(rows)
        if score:
            self._parent.metrics([("suite_score", step, score[0], now)])
        self._parent.tags({"mlflow.note.content": self._description(rows, score)})
        means = group_means(rows)
        if means:
            names = ("features", "protocol", "group", "tasks", "mean")
            self._parent.table(_columns(names, means), "tables/group_means")
        own = [(f"mean/{group}/{label}", mean) for kind, label, group, _, mean in means if kind == "checkpoint"]
        self._parent.metrics([(_key(name), step, mean, now) for name, mean in own])
        failures = [line for outcome in outcomes for line in outcome.failures]
        self._parent.tags({"failed": len(failures), **({"failures": "\n".join(failures)} if failures else {})})
        for name in ("results.md", "results.csv"):
            self._parent.text(storage.read_bytes(storage.join(out, name)).decode(), f"tables/{name}")

    def _points(self, rows: list[Result]) -> list[Point]:
        """The checkpoint's own results. Their time is that of the suite, so that a point sent twice is one."""
        own = [row for row in rows if row.features == "checkpoint"]
        samples = self._checkpoint.samples_seen
        return [(_key(f"{row.task}/{row.label}"), samples, row.value, self._started_ms) for row in own]

    def _description(self, rows: list[Result], score: tuple[float, str] | None) -> str:
        """Markdown for a reviewer, on the page of the suite: its score, then each result of the checkpoint."""
        head = f"**{score[0]:.2%}** {score[1]}" if score else "no kNN or logistic score of the checkpoint"
        chosen = [COLUMNS.index(name) for name in ("task", "protocol", "metric", "value", "95 % interval", "chance")]
        own = [cells(row) for row in rows if row.features == "checkpoint"]
        table = markdown([COLUMNS[i] for i in chosen], [[row[i] for i in chosen] for row in own])
        return f"{head}\n\ncheckpoint: `{self._checkpoint.uri}`\n\n{table}"

    def _overview(self, rows: list[Result]) -> None:
        """Bars of all results; ranks of the kinds of features; the radar when there are axes enough for one."""
        suite = TransferRun(name="suite", uri="", suite="", checkpoint=self._checkpoint.uri, rows=rows)
        if rows:
            self._parent.figure(transfer_figure([suite]), "charts/results")
        named = [(row.features, row) for row in rows if row.features != "oracle"]
        ranks = mean_ranks([one for one in named if one[0] in ("checkpoint", "random")])
        if len(ranks) > 1:
            self._parent.table(_columns(("features", "mean_rank", "task_x_protocol"), ranks), "tables/ranks")
        tasks, values = radar_values(named, "knn")
        if len(tasks) >= 3:
            self._parent.figure(radar_figure(tasks, values, "kNN"), "charts/radar")


def short_name(checkpoint_uri: str) -> str:
    """The folder's name; for RUN/checkpoints/000000160000 'RUN at 160,000'."""
    *above, last = checkpoint_uri.rstrip("/").split("/")
    if not last.isdecimal():
        return last
    run = next((name for name in reversed(above) if name and name != "checkpoints"), "checkpoint")
    return f"{run} at {int(last):,}"


def _columns(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, list[Any]]:
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def _key(name: str) -> str:
    """MLflow's metric names allow letters, digits and _-./ and blanks."""
    return "".join(char if char.isalnum() or char in "_-./ " else "_" for char in name)
