"""`focusvit report`: finished trainings and transfer suites side by side: Markdown, CSV and pictures, no UI."""

import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from focusvit import __version__
from focusvit.predict.pictures import figure_pixels, save_png
from focusvit.runs.config_json import flatten
from pipeline.commandline import parse
from pipeline.errors import UsageError
from pipeline.io import storage
from pipeline.io.json_text import json_text
from pipeline.secrets import masked
from transfer.options import ReportConfig

from .charts import curves_figure, radar_figure, transfer_figure
from .finished import TrainingRun, TransferRun, find_runs
from .summary import group_means, mean_ranks, radar_values, side_by_side
from .table import CSV_COLUMNS, csv_cells, csv_text, markdown, markdown_table

_HOME = Path(__file__).parent
_TRAINING_COLUMNS = ("run", "samples seen", "best val top-1", "last val loss", "images/s", "data wait", "MLflow run")
_MILESTONES = {
    "epoch": ("train/epoch", "{:.2f}"),
    "train loss": ("train/loss", "{:.4f}"),
    "val loss": ("val/loss", "{:.4f}"),
    "val top-1": ("val/top1", "{:.2%}"),
    "images/s": ("perf/img_per_s", "{:.0f}"),
    "data wait": ("perf/data_wait_share", "{:.0%}"),
}
_KEPT = (*(name for name, _ in _MILESTONES.values()), "train/top1", "train/lr")


def main(argv: list[str]) -> int:
    config = parse(ReportConfig, argv, prog="focusvit report")
    if not config.runs:
        raise UsageError("no run is named. Give run directories: focusvit report RUN...")
    trainings, transfers = find_runs([storage.resolve(place) for place in config.runs])
    out = storage.resolve(config.out)
    say = sys.stderr.write if config.json else sys.stdout.write
    say(f"report of {len(trainings)} trainings and {len(transfers)} transfer suites, to {out}\n")
    text = write_report(out, trainings, transfers, _made_by(argv))
    if config.json:
        rows = {"trainings": [_training_row(run) for run in trainings], "transfers": [run.uri for run in transfers]}
        sys.stdout.write(json_text({"report": storage.join(out, "report.md"), **rows}) + "\n")
    else:
        say(text)
    say(f"report written: {storage.join(out, 'report.md')}\n")
    return 0


def _made_by(argv: list[str]) -> dict[str, str]:
    """Command, day, versions, and the commit where the code lies in its checkout."""
    used = [f"focusvit {__version__}", *(f"{name} {version(name)}" for name in ("torch", "numpy", "scikit-learn"))]
    facts = {"command": f"focusvit report {' '.join(argv)}", "date": datetime.now(UTC).date().isoformat()}
    with suppress(OSError, subprocess.CalledProcessError):
        git = ["git", "describe", "--always", "--dirty"]
        facts["commit"] = subprocess.check_output(git, cwd=_HOME, stderr=subprocess.DEVNULL, text=True).strip()
    return facts | {"versions": ", ".join(used)}


def write_report(
    out: str, trainings: list[TrainingRun], transfers: list[TransferRun], facts: dict[str, Any] | None = None
) -> str:
    """Write all files and return the Markdown text. `facts`: what made the report (command, commit, versions)."""
    parts = ["# Report\n"]
    if trainings:
        rows = [_training_row(run) for run in trainings]
        parts.append("## Trainings\n\n" + markdown(_TRAINING_COLUMNS, [list(row.values()) for row in rows]))
        parts.append("![curves](curves.png)\n")
        for training in trainings:
            rows_seen = markdown(["samples seen", *_MILESTONES], milestones(training))
            parts.append(f"{training.name}:\n\n{rows_seen}")
        curves = {one.name: {name: one.curves[name] for name in _KEPT if name in one.curves} for one in trainings}
        storage.put_json(storage.join(out, "curves.json"), curves)
        if len(trainings) > 1:
            parts.append("Settings that differ:\n\n" + _differences(trainings))
        table = csv_text(_TRAINING_COLUMNS, [row.values() for row in rows])
        storage.put(storage.join(out, "trainings.csv"), table.encode())
        save_png(storage.join(out, "curves.png"), figure_pixels(curves_figure(trainings)))
    for run in transfers:
        title = f"## Transfer: {run.name}\n\nsuite '{run.suite}' of `{_shown(run.checkpoint)}`\n\n"
        parts.append(title + markdown_table(run.rows))
        listed = [f"- failed: {line}" for line in run.failures] + [f"- {line}" for line in run.notes]
        parts += ["\n".join(listed) + "\n"] if listed else []
    if any(run.rows for run in transfers):
        table = csv_text(("run", *CSV_COLUMNS), [[one.name, *csv_cells(row)] for one in transfers for row in one.rows])
        storage.put(storage.join(out, "transfer.csv"), table.encode())
        save_png(storage.join(out, "transfer.png"), figure_pixels(transfer_figure(transfers)))
        parts.append("![transfer](transfer.png)\n")
        parts += _across(out, transfers)
    if facts:
        parts.append("## Made by\n\n" + "".join(f"- {name}: {value}\n" for name, value in facts.items()))
    text = "\n".join(parts)
    storage.put(storage.join(out, "report.md"), masked(text).encode())
    return text


def _shown(uri: str) -> str:
    """A place as a reader elsewhere can use it: below the current folder without that folder's own path."""
    here = f"{Path.cwd()}/"
    return uri.removeprefix(here) if storage.is_local(uri) else uri


def _across(out: str, transfers: list[TransferRun]) -> list[str]:
    """Runs side by side, means of groups, ranks and the radar, where there are enough runs or tasks for them."""
    named = [
        (run.name if row.features == "checkpoint" else f"{run.name} {row.features}", row)
        for run in transfers
        for row in run.rows
        if row.features != "oracle"
    ]
    parts = []
    if len(transfers) > 1:
        parts.append("## Side by side\n")
        for label, (head, *lines) in side_by_side(named).items():
            parts.append(f"{label}:\n\n{markdown(head, lines)}")
    means = [(run.name, *mean) for run in transfers for mean in group_means(run.rows)]
    if means:
        rows = [[*one[:4], one[4], f"{one[5]:.2%}"] for one in means]
        parts.append("## Means\n\n" + markdown(["run", "features", "protocol", "group", "tasks", "mean"], rows))
    ranks = mean_ranks([(name, row) for name, row in named if not name.endswith("pixels")])
    if len(ranks) > 1:
        rows = [[name, f"{rank:.2f}", count] for name, rank, count in ranks]
        columns = ["run", "mean rank (1 = best)", "task x protocol"]
        parts.append("## Ranks\n\n" + markdown(columns, rows))
    tasks, values = radar_values(named, "logistic")
    if len(tasks) >= 3:
        save_png(storage.join(out, "radar.png"), figure_pixels(radar_figure(tasks, values, "logistic probe")))
        parts.append("![radar](radar.png)\n")
    return parts


def _training_row(run: TrainingRun) -> dict[str, Any]:
    seen = max((points[-1][0] for points in run.curves.values()), default=0)
    found = (
        (run.best("val/top1"), "{:.2%}"), (run.last("val/loss"), "{:.4f}"), (run.last("perf/img_per_s"), "{:,.0f}"),
        (run.last("perf/data_wait_share"), "{:.0%}"),
    )  # fmt: skip
    values = ["" if value is None else form.format(value) for value, form in found]
    return dict(zip(_TRAINING_COLUMNS, (run.name, f"{seen:,}", *values, run.run_id)))


def milestones(run: TrainingRun) -> list[list[str]]:
    """One row for each scoring; what was measured more often is the mean since the row before (the epoch: the last)."""
    rows, before = [], 0
    for samples, _ in run.curves.get("val/top1", []):
        row = [f"{samples:,}"]
        for name, form in _MILESTONES.values():
            values = [value for at, value in run.curves.get(name, []) if before < at <= samples]
            value = values[-1] if name == "train/epoch" and values else sum(values) / max(1, len(values))
            row.append(form.format(value) if values else "")
        rows.append(row)
        before = samples
    return rows


def _differences(runs: list[TrainingRun]) -> str:
    """A table of the settings in which the runs are not all alike."""
    flat = [flatten(run.config) for run in runs]
    keys = sorted(set().union(*flat))
    rows = [[key, *(str(one.get(key, "")) for one in flat)] for key in keys]
    return markdown(["setting", *(run.name for run in runs)], [row for row in rows if len(set(row[1:])) > 1])
