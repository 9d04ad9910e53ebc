"""The ledger of `bench study` as tables and one picture: what was chosen, what every row reaches, at which cost."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from focusvit.model.slices import STEM_PIXELS
from focusvit.score.intervals import of_mean, over_draws, wilson
from tests.benchmarks.record import Record as BenchRecord
from tests.benchmarks.report import Table
from tests.benchmarks.study.curves import picture
from tests.benchmarks.study.ledger import by_row, lighter_scores, of_one_commit, rate_scores, read_ledger
from tests.benchmarks.study.matrix import LIGHTER, PLAIN, SETS, core_rows, with_lighter
from tests.benchmarks.study.recipe import RATES
from tests.benchmarks.study.speed import speedups, training_costs

Record = dict[str, Any]
Scores = dict[str, dict[int, float]]
"""top-1 by row and seed"""


def report(ledger: Path, into: BenchRecord) -> None:
    """Put the tables of what the ledger holds into a record, and draw its picture."""
    everything = read_ledger(ledger)
    records = [record for record in everything if record["stage"] in ("rates", "core")]
    measured = [record for record in everything if record["stage"] in ("speed", "lighter")]
    into.facts |= {
        "records": len(records),
        "commits_of_the_runs": ", ".join(sorted({record["commit"] for record in records})),
        "commits_of_the_speeds": ", ".join(sorted({record["commit"] for record in measured})),
        "devices": ", ".join(sorted({record["device"] for record in records})),
    }
    for set_name in SETS:
        of_set = [record for record in everything if record["set"] == set_name]
        core = [record for record in of_set if record["stage"] == "core"]
        sittings = of_one_commit([record for record in of_set if record["stage"] == "speed"])
        if core:
            into.add(score_table(core, set_name), compute_table(core, sittings))
        if sittings:
            into.add(joint_table(sittings, core, [record for record in of_set if record["stage"] == "lighter"]))
        if any(record["stage"] == "rates" for record in of_set):
            into.add(rate_table(of_set, set_name))
    if any(record["stage"] == "core" for record in records):
        picture(everything, into.path(".jpg"))


def scores_of(records: Sequence[Record]) -> Scores:
    found: Scores = {}
    for record in records:
        found.setdefault(record["row"], {})[record["seed"]] = record["scores"]["top1"]
    return found


def score_table(records: Sequence[Record], set_name: str) -> Table:
    """Mean top-1 over seeds with its 95 % interval, the paired difference to the plain ViT, how flat the curve is."""
    scores, rows = scores_of(records), []
    for row, found in by_row(records).items():
        mean = statistics.mean(scores[row].values())
        rows.append(
            (row, len(found), f"{found[0]['lr']:g}", f"{mean:.2%}", interval(found),
             against(scores[row], scores.get(PLAIN, {})), flatness(found), f"{found[0]['curve'][-1]['learned']:.2f}")
        )  # fmt: skip
    one = records[0]
    note = (
        f"{one['epochs']:g} epochs of {one['train_samples']} images from scratch, one recipe for every row but for the "
        f"learning rate (chosen on held-out training images, see below), cosine to 1 %; {one['test_samples']} test "
        "images, which chose nothing. Intervals: 95 %, Student's t over seeds; of one seed Wilson's, for the draw of "
        "the test images alone. The last epochs: points of top-1 gained in the last tenth and fifth of the training."
    )
    columns = ("model", "seeds", "learning rate", "top-1", "95 % interval", f"points against '{PLAIN}'",
               "gained in the last 10 %, 20 %", "last training loss")  # fmt: skip
    return Table(title=f"{set_name}: top-1 at the end of training", columns=columns, rows=rows, note=note)


def interval(records: Sequence[Record]) -> str:
    """'41.2 .. 43.0 %'."""
    values = [record["scores"]["top1"] for record in records]
    count = records[0]["scores"]["num_samples"]
    low, high = over_draws(values) if len(values) > 1 else wilson(round(values[0] * count), round(count))
    return f"{100 * low:.1f} .. {100 * high:.1f} %"


def flatness(records: Sequence[Record]) -> str:
    """Points of top-1 between 90 % and the end of the training, and between 80 % and the end; mean over seeds."""
    gained = []
    for share in (0.9, 0.8):
        each = [100 * (record["curve"][-1]["top1"] - top1_at(record, share * record["scores"]["samples"]))
                for record in records]  # fmt: skip
        gained.append(f"{statistics.mean(each):+.1f}")
    return ", ".join(gained)


def top1_at(record: Record, samples: float) -> float:
    """Top-1 at the last scored point that is not after `samples`; 0 before the first."""
    seen = {point["samples"]: point["top1"] for point in record["curve"] if point["samples"] <= samples}
    return seen[max(seen)] if seen else 0.0


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


def compute_table(records: Sequence[Record], sittings: Sequence[Record]) -> Table:
    """The second reading: every row when it has used as much compute as the cheapest one had at its end."""
    costs = [training_costs(record) for record in sittings]
    rows = []
    spent = {row: found[0]["multiply_adds"] for row, found in by_row(records).items()}
    least = min(spent.values()) * records[0]["scores"]["samples"]
    for row, found in by_row(records).items():
        samples = least / spent[row]
        reached = statistics.mean(top1_at(record, samples + 1) for record in found)
        measured = [cost[row] for cost in costs if row in cost]
        rows.append(
            (row, f"{spent[row] / 1e6:.1f}", f"{1000 * statistics.median(measured):.2f}" if measured else "-",
             f"{samples / records[0]['train_samples']:.0f}", f"{reached:.1%}")
        )  # fmt: skip
    columns = ("model", "million multiply-adds of a forward", "CPU ms of a training sample", "epochs", "top-1 there")
    note = (
        "Every row at the point of its curve at which it has done as many multiply-adds as the cheapest row in its "
        "whole training. Its learning rate has not come down there: rows that cost more would score more if they had "
        "been planned for that budget."
    )
    return Table(title=f"{records[0]['set']}: at equal compute", columns=columns, rows=rows, note=note)


def rate_table(records: Sequence[Record], set_name: str) -> Table:
    """The held-out choice: top-1 of every row at each learning rate."""
    tried = [record for record in records if record["stage"] == "rates"]
    rates = sorted({record["lr"] for record in tried})
    rows = []
    for row in core_rows(SETS[set_name]):
        scores = rate_scores(tried, set_name, row)
        if scores:
            best = f"{max(scores, key=scores.__getitem__):g}" if scores.keys() >= set(RATES) else "not all tried yet"
            rows.append((row, *(f"{scores[rate]:.2%}" if rate in scores else "-" for rate in rates), best))
    one = tried[0]
    note = (
        f"{one['epochs']:g} epochs of {one['train_samples']} training images, scored on {one['test_samples']} others "
        "of train that were held out; seed 0. Where the choice lies at an end of the grid, a value beyond it might be "
        "better."
    )
    return Table(
        title=f"{set_name}: learning rates tried on held-out training images",
        columns=("model", *(f"{rate:g}" for rate in rates), "chosen"), rows=rows, note=note,
    )  # fmt: skip


def joint_table(sittings: Sequence[Record], records: Sequence[Record], lighter: Sequence[Record] = ()) -> Table:
    """Throughput, memory and accuracy together, each row relative to the plain ViT: the claim is met or it is not.

    `sittings` are the speed records of one set: a row shows the median of those that have it, and their range.
    `lighter`: what models score with other superpixels; a row of its own each.
    """
    set_name = sittings[0]["set"]
    scores = scores_of(records) | lighter_scores(records, lighter)
    found = [speedups(record) for record in sittings]
    every = core_rows(SETS[set_name])
    others = {row: [name for name in (with_lighter(row, told) for told in LIGHTER) if name in scores] for row in every}
    names = [name for row in every for name in (row, *others[row])]
    rows = []
    for row in names:
        costs = [speeds[row] for speeds in found if row in speeds]
        if not costs:
            continue
        whole, memory = [cost.whole for cost in costs], statistics.median(cost.memory for cost in costs)
        compiled = [cost.compiled for cost in costs if cost.compiled is not None]
        rows.append(
            (row, ratios([cost.bare for cost in costs]), ratios(whole), ratios(compiled) if compiled else "-",
             f"{memory:.0%}", against(scores.get(row, {}), scores.get(PLAIN, {})),
             verdict(row, statistics.median(whole), memory, scores))
        )  # fmt: skip
    note = (
        "Goal: at least 2.10x with superpixels, at most 57 % of the peak memory, at most 1 point below. CPU seconds of "
        f"all threads, batches of {sittings[0]['batch']} run whole by every row, the plain ViT's too (stems in slices "
        f"of {STEM_PIXELS} pixels), fp32, eager, and compiled against the compiled plain ViT; superpixels as in the "
        "shards, light and lightest where the trained model was asked with those: its points are those of its own "
        "superpixels plus what the others changed in one more scoring. "
        + (
            "One process."
            if len(sittings) == 1
            else f"Medians of up to {len(sittings)} processes, in brackets the least and the most."
        )
    )
    columns = ("model", "throughput", "with superpixels", "compiled, with superpixels", "peak memory",
               f"points against '{PLAIN}'", "all three")  # fmt: skip
    return Table(title=f"{set_name}: the joint claim", columns=columns, rows=rows, note=note)


def ratios(values: Sequence[float]) -> str:
    """'2.13x (1.96 .. 2.46)', or without brackets when there is one value."""
    spread = f" ({min(values):.2f} .. {max(values):.2f})" if len(values) > 1 else ""
    return f"{statistics.median(values):.2f}x{spread}"


def verdict(row: str, throughput: float, memory: float, scores: Scores) -> str:
    """'met', 'missed: ...' with what was missed, or 'open' while there are no scores to compare."""
    if row == PLAIN:
        return "-"
    shared = scores.get(row, {}).keys() & scores.get(PLAIN, {}).keys()
    missed = [] if throughput >= 2.1 else ["throughput"]
    missed += [] if memory <= 0.57 else ["memory"]
    if shared and statistics.mean(scores[row][seed] - scores[PLAIN][seed] for seed in shared) < -0.01:
        missed.append("accuracy")
    if missed:
        return f"missed: {', '.join(missed)}"
    return f"met ({len(shared)} seed{'s' * (len(shared) != 1)})" if shared else "open"
