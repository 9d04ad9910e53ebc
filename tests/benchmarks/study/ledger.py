"""The ledger of the study: one JSON file a finished training."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from tests.benchmarks.study.matrix import SETS, core_rows


def read_ledger(ledger: Path) -> list[dict[str, Any]]:
    """All complete records, in the order of their names."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(ledger.glob("*.json"))]


def by_row(records: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The records of stage core of one set, in the order of the matrix."""
    order = list(core_rows(SETS[records[0]["set"]]))
    return {row: found for row in order if (found := [record for record in records if record["row"] == row])}


def rate_scores(records: Sequence[dict[str, Any]], set_name: str, row: str) -> dict[float, float]:
    """Held-out top-1 of a row by learning rate."""
    tried = [r for r in records if r["stage"] == "rates" and (r["set"], r["row"]) == (set_name, row)]
    return {record["lr"]: record["scores"]["top1"] for record in tried}


def best_rate(records: Sequence[dict[str, Any]], set_name: str, row: str, rates: Sequence[float]) -> float:
    """The learning rate with the best held-out score. Raises `UsageError` while one of `rates` was not tried."""
    scores = rate_scores(records, set_name, row)
    missing = [f"{rate:g}" for rate in rates if rate not in scores]
    if missing:
        raise UsageError(
            f"learning rate {', '.join(missing)} of '{row}' on {set_name} was not tried. Run `--stage rates` first."
        )
    return max(rates, key=scores.__getitem__)


def kept_at(checkpoints: str, set_name: str, row: str, seed: int) -> str:
    """Where a finished model lies: that of 'control: uniform grid' in control-uniform-grid-0."""
    return f"{checkpoints}/{set_name}/{'-'.join(re.findall(r'[a-z0-9]+', row.lower()))}-{seed}"
