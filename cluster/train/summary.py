"""What a training came to, told by its run directory alone. A score always stands beside the weights that it is of."""

import shlex
from typing import Any

from focusvit.runs.checkpoint import load_checkpoint, read_confusion
from focusvit.runs.metrics_log import read_points
from focusvit.runs.run_dir import RunDir
from focusvit.score.confusion import chance


def summarise(run: RunDir, seconds: float, unsent: int) -> dict[str, Any]:
    """The summary of `--json`: `scores` are those of `checkpoint`, `last_scores` those at the end of the run."""
    record = load_checkpoint(run.uri)
    known, counts = run.info(), read_confusion(record)
    last: dict[str, float] = {}
    for point in read_points(run):
        last.update(point["values"])
    return {
        "run_dir": run.uri,
        "checkpoint": record.uri,
        "checkpoint_samples": record.samples_seen,
        "scores": record.metrics,
        "last_scores": {name: value for name, value in last.items() if name.startswith("val/")},
        "metrics": {name: value for name, value in last.items() if not name.startswith("val/")},
        "samples_seen": run.latest(),
        "num_classes": len(record.classes),
        "chance": None if counts is None else chance(counts),
        "seconds": round(seconds, 1),
        "run_id": known.get("run_id"),
        "tracking_uri": known.get("tracking_uri"),
        "points_not_sent": unsent,
    }


def description(summary: dict[str, Any], data_uri: str) -> str:
    """Markdown for a reviewer, on the run's page and in the column of that name: how well, after what, where it is."""
    name, chance = _score_name(summary), _chance(summary, "{:.2%}")
    share, last = summary["scores"].get(name), summary["last_scores"].get(name)
    score = "not scored" if share is None else f"{name} **{share:.2%}**{chance}"
    end = "" if last is None or last == share else f", {last:.2%} at the end"
    return (
        f"{score} after {summary['checkpoint_samples']} of {summary['samples_seen']} samples of `{data_uri}`{end}\n\n"
        f"best checkpoint: `{summary['checkpoint']}`"
    )


def summary_line(summary: dict[str, Any]) -> str:
    """What a finished training comes to, for the terminal."""
    name = _score_name(summary)
    last = summary["last_scores"].get(name)
    at_the_end = last is None or summary["checkpoint_samples"] == summary["samples_seen"]
    end = "" if at_the_end else f"; at the end {name} {last:.4f}"
    return (
        f"trained {summary['samples_seen']} samples in {summary['seconds']:.0f} s; the best checkpoint "
        f"{summary['checkpoint']}: {_listed(summary['scores'])}{_chance(summary, '{:.4f}')}{end}; "
        f"its curves: focusvit ui --tracking-uri {shlex.quote(str(summary['tracking_uri']))}"
    )


def _listed(scores: dict[str, float]) -> str:
    shown = [
        f"{name} {scores[name]:.4f}" for name in ("val/top1", "val/top5", "val/cosine", "val/loss") if name in scores
    ]
    return ", ".join(shown) or "not scored"


def _score_name(summary: dict[str, Any]) -> str:
    """A training without labels is scored by the cosine with its teacher's features."""
    return "val/top1" if summary["num_classes"] else "val/cosine"


def _chance(summary: dict[str, Any], form: str) -> str:
    return "" if summary["chance"] is None else f" (chance {form.format(summary['chance'])})"
