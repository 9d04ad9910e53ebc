"""The ledger of the study: one JSON file for each finished training, and for each measurement of speeds or models."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from tests.benchmarks.study.matrix import SETS, core_rows, lighter_in, with_lighter


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


def of_one_commit(sittings: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Speeds of the commit that was measured last: medians over several versions belong to none."""
    return [record for record in sittings if record["commit"] == sittings[-1]["commit"]]


def lighter_scores(
    core: Sequence[dict[str, Any]], lighter: Sequence[dict[str, Any]]
) -> dict[str, dict[int, float]]:  # fmt: skip
    """Top-1 by `with_lighter` and seed: the score of the core record plus what other superpixels gave that very model,
    told by its score at the end of its training."""
    own = {(record["row"], record["seed"]): record["scores"]["top1"] for record in core}
    found: dict[str, dict[int, float]] = {}
    for record in lighter:
        row, seed, scores = record["row"], record["seed"], record["scores"]
        if own.get((row, seed)) != record["trained_top1"]:
            continue
        for name in lighter_in(record):
            found.setdefault(with_lighter(row, name), {})[seed] = own[row, seed] + scores[name] - scores["shards"]
    return found
