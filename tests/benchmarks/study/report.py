"""The ledger of `bench study` as tables: every row with its spread, its distance to the plain ViT, and its rank."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from focusvit.score.intervals import of_mean, over_draws
from tests.benchmarks.record import Record as BenchRecord
from tests.benchmarks.report import Table
from tests.benchmarks.study.ledger import read_ledger
from tests.benchmarks.study.matrix import DEFAULT, PLAIN, SETS, core_rows, selection_rows
from tests.benchmarks.study.speed import speedups

Record = dict[str, Any]
Scores = dict[str, dict[int, float]]
"""top-1 by row and seed"""


def report(ledger: Path, into: BenchRecord) -> None:
    """Put the tables of what the ledger holds into a record."""
    everything = read_ledger(ledger)
    records = [record for record in everything if record["stage"] != "speed"]
    into.facts |= {
        "records": len(records),
        "commits_of_the_runs": ", ".join(sorted({record["commit"] for record in records})),
        "devices": ", ".join(sorted({record["device"] for record in records})),
    }
    tables = [table for stage in ("core", "select") for table in stage_tables(records, stage)]
    for set_name in SETS:
        sittings = [record for record in everything if (record["stage"], record["set"]) == ("speed", set_name)]
        tables += [joint_table(sittings, records)] if sittings else []
    into.add(*tables)


def stage_tables(records: Sequence[Record], stage: str) -> list[Table]:
    """One table for each data set and budget of training samples that the stage has records of."""
    tables = []
    for set_name in SETS:
        found = [record for record in records if (record["set"], record["stage"]) == (set_name, stage)]
        for samples in sorted({record["scores"]["samples"] for record in found}):
            same = [record for record in found if record["scores"]["samples"] == samples]
            tables.append(score_table(same, set_name, stage, samples))
    return tables


def score_table(records: Sequence[Record], set_name: str, stage: str, samples: int) -> Table:
    """Mean top-1 over seeds with its 95 % interval, the paired difference to the plain ViT, the rank."""
    order = list((core_rows if stage == "core" else selection_rows)(SETS[set_name]))
    scores: Scores = {}
    for record in records:
        scores.setdefault(record["row"], {})[record["seed"]] = record["scores"]["top1"]
    means = {row: statistics.mean(by_seed.values()) for row, by_seed in scores.items()}
    shared = set.intersection(*(set(by_seed) for by_seed in scores.values()))
    fair = {row: statistics.mean(s for seed, s in by_seed.items() if seed in shared or not shared)
            for row, by_seed in scores.items()}  # fmt: skip
    baseline = PLAIN if stage == "core" else DEFAULT
    rows = []
    for row in sorted(scores, key=lambda row: order.index(row) if row in order else len(order)):
        rank = 1 + sum(other > fair[row] for other in fair.values())
        rows.append(
            (row, len(scores[row]), f"{means[row]:.2%}", interval(list(scores[row].values())),
             against(scores[row], scores.get(baseline, {})), rank)
        )  # fmt: skip
    one = records[0]
    what = "the test split, scored once" if stage == "core" else "a held-out tenth of train"
    note = (
        f"{samples} training samples from scratch ({samples / one['train_samples']:.2f} epochs of "
        f"{one['train_samples']}), the same recipe for every row; {one['test_samples']} images in {what}. Intervals: "
        "95 %, Student's t over seeds; differences are paired by seed, ranks are of the seeds that all rows have. "
        "'-': a single seed has no interval."
    )
    columns = ("model", "seeds", "top-1", "95 % interval", f"points against '{baseline}'", "rank")
    return Table(title=f"{set_name}, stage {stage}", columns=columns, rows=rows, note=note)


def interval(values: Sequence[float]) -> str:
    """'41.2 .. 43.0 %', or '-' for a single value."""
    if len(values) < 2:
        return "-"
    low, high = over_draws(list(values))
    return f"{100 * low:.1f} .. {100 * high:.1f} %"


def against(scores: dict[int, float], baseline: dict[int, float]) -> str:
    """Mean difference in points over the seeds that both have, with its interval."""
    shared = sorted(scores.keys() & baseline.keys())
    if not shared:
        return "-"
    points = [100 * (scores[seed] - baseline[seed]) for seed in shared]
    mean = f"{statistics.mean(points):+.2f}"
    if len(points) < 2:
        return mean
    low, high = of_mean(points)
    return f"{mean} ({low:+.1f} .. {high:+.1f})"


def joint_table(sittings: Sequence[Record], records: Sequence[Record]) -> Table:
    """Throughput, memory and accuracy together, each row beside the plain ViT: the claim is met or it is not.

    `sittings` are the speed records of one set: a row shows the median of those that have it, and their range.
    """
    set_name = sittings[0]["set"]
    of_set = [r for r in records if (r["set"], r["stage"]) == (set_name, "core")]
    budget = max((r["scores"]["samples"] for r in of_set), default=0)
    scores: Scores = {}
    for record in of_set:
        if record["scores"]["samples"] == budget:
            scores.setdefault(record["row"], {})[record["seed"]] = record["scores"]["top1"]
    found = [speedups(record) for record in sittings]
    rows = []
    for row in core_rows(SETS[set_name]):
        costs = [speeds[row] for speeds in found if row in speeds]
        if not costs:
            continue
        bare, whole, memory = zip(*costs, strict=True)
        rows.append(
            (row, ratios(bare), ratios(whole), f"{statistics.median(memory):.0%}",
             against(scores.get(row, {}), scores.get(PLAIN, {})),
             verdict(row, statistics.median(whole), statistics.median(memory), scores))
        )  # fmt: skip
    note = (
        "Goal: at least 2.10x with superpixels, at most 57 % of the peak memory, at most 1 point below. CPU seconds of "
        f"all threads, batch {sittings[0]['batch']}, fp32, eager; superpixels as in the shards of the row. Medians of "
        f"up to {len(sittings)} processes, in brackets the least and the most."
    )
    columns = ("model", "throughput", "with superpixels", "peak memory", f"points against '{PLAIN}'", "all three")
    return Table(title=f"{set_name}: the joint claim", columns=columns, rows=rows, note=note)


def ratios(values: Sequence[float]) -> str:
    """'2.13x (1.96 .. 2.46)', or without brackets when there is one value."""
    spread = f" ({min(values):.2f} .. {max(values):.2f})" if len(values) > 1 else ""
    return f"{statistics.median(values):.2f}x{spread}"


def verdict(row: str, throughput: float, memory: float, scores: Scores) -> str:
    """'met', 'missed: ...' with what was missed, or 'open' while fewer than 3 shared seeds are there."""
    if row == PLAIN:
        return "-"
    shared = scores.get(row, {}).keys() & scores.get(PLAIN, {}).keys()
    missed = [] if throughput >= 2.1 else ["throughput"]
    missed += [] if memory <= 0.57 else ["memory"]
    if shared and statistics.mean(scores[row][seed] - scores[PLAIN][seed] for seed in shared) < -0.01:
        missed.append("accuracy")
    if missed:
        return f"missed: {', '.join(missed)}"
    return "met" if len(shared) >= 3 else f"open ({len(shared)} of 3 seeds)"
