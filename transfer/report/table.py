"""The one table: rows of results as aligned text, Markdown and CSV."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.commandline import aligned
from transfer.tasks.result import Result

_NAMES = {"mean_per_class": "per class", "pixel_accuracy": "pixels", "boundary_f1": "boundary F1", "top1": "top-1"}
COLUMNS = ("task", "features", "protocol", "metric", "value", "95 % interval", "chance", "also", "test", "chosen")
_FIELDS = (
    "task features protocol variant metric value low high interval chance num_classes num_train num_test fit_s".split()
)
CSV_COLUMNS = (*_FIELDS, "top1", "mean_per_class", "chosen")


def cells(row: Result) -> list[str]:
    """One row as text, in the order of COLUMNS."""
    low, high = row.low, row.high
    spread = "unknown (1 draw)" if math.isinf(low) else f"{low:.2%} - {high:.2%}"
    chosen = ", ".join(f"{name} {_short(value)}" for name, value in row.chosen.items())
    also = [f"{_NAMES.get(name, name)} {value:.1%}" for name, value in row.scores.items() if name != row.metric]
    numbers = (f"{row.value:.2%}", spread, f"{row.chance:.2%}", ", ".join(also), f"{row.num_test:,}")
    return [row.task, row.features, row.label, row.metric, *numbers, chosen]


def text_table(rows: list[Result]) -> str:
    """Aligned columns for a terminal."""
    return "\n".join(aligned([COLUMNS, *map(cells, rows)]))


def markdown(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table of whatever the cells are."""
    lines = [f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def markdown_table(rows: list[Result]) -> str:
    """The same as `text_table`, in Markdown."""
    return markdown(COLUMNS, map(cells, rows))


def csv_text(columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """A CSV file of whatever the cells are."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([columns, *rows])
    return out.getvalue()


def csv_cells(row: Result) -> list[Any]:
    """One row in full precision, one column per number, for other programs; in the order of CSV_COLUMNS."""
    chosen = "; ".join(f"{name}={value}" for name, value in row.chosen.items())
    scores = [row.scores.get("top1", ""), row.scores.get("mean_per_class", "")]
    return [*(getattr(row, name) for name in _FIELDS), *scores, chosen]


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
