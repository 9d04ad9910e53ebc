"""The report of the study recounts its ledger."""

import json
import statistics
from pathlib import Path
from types import SimpleNamespace

from PIL import Image

from testkit.study_ledger import rates_tried, records
from tests.benchmarks.report import Table
from tests.benchmarks.study import study
from tests.benchmarks.study.matrix import DEFAULT, PLAIN, lighter_settings, with_lighter
from tests.benchmarks.study.report import (
    against,
    compute_table,
    flatness,
    interval,
    joint_table,
    rate_table,
    report,
    score_table,
    verdict,
)


def test_the_tables_recount_the_ledger(tmp_path: Path) -> None:
    top1 = {PLAIN: [0.40, 0.42, 0.41], DEFAULT: [0.41, 0.41, 0.43], "control: uniform grid": [0.30]}
    found = records(top1)
    table = {row[0]: row for row in score_table(found, "cifar10").rows}
    assert list(table) == list(top1) and table[DEFAULT][3] == f"{statistics.mean(top1[DEFAULT]):.2%}"
    # Points +1, -1, +2: mean 0.67, standard error 0.88, 4.303 of them on two degrees of freedom.
    assert table[DEFAULT][5] == "+0.67 (-3.1 .. +4.5)"
    assert table["control: uniform grid"][4] == interval(found[-1:]) == "19.1 .. 43.8 %"  # 15 of 50 by Wilson
    assert against({3: 0.5}, {4: 0.5}) == "-"
    assert flatness(found[-1:]) == "+3.0, +6.0"
    # A plain ViT costs four times as much: it is looked at after a quarter of the samples, at its second point.
    equal = {row[0]: row for row in compute_table(found, []).rows}
    assert equal[PLAIN][3:] == ("2", f"{0.2 * 0.41:.1%}") and equal["control: uniform grid"][4] == "30.0%"
    rates_tried(tmp_path, [PLAIN])
    (row,) = rate_table(study.read_ledger(tmp_path), "tiny-imagenet-40").rows
    assert row == (PLAIN, "40.00%", "40.00%", "50.00%", "0.003")
    next(tmp_path.glob("tried-0-0.0015*")).unlink()
    (row,) = rate_table(study.read_ledger(tmp_path), "tiny-imagenet-40").rows
    assert row == (PLAIN, "40.00%", "50.00%", "not all tried yet")


def test_the_picture_shows_every_set_that_was_trained(tmp_path: Path) -> None:
    (tmp_path / "ledger").mkdir()
    cost = {"forward_s": [2.0], "superpixels_s": 0.2, "peak_bytes": 100, "lighter_s": {"light": 0.1, "lightest": 0.0}}
    others = [
        {"stage": "speed", "set": "cifar10", "batch": 64, "commit": "abc", "settings": lighter_settings(),
         "rows": {PLAIN: {**cost, "training_s": [1.0]},
         DEFAULT: {**cost, "training_s": [1.0]}}},
        {"stage": "lighter", "set": "cifar10", "row": DEFAULT, "seed": 0, "commit": "abc",
         "settings": lighter_settings(),
         "scores": {"shards": 0.5, "light": 0.5, "lightest": 0.4}, "trained_top1": 0.5},
    ]  # fmt: skip
    for number, record in enumerate([*records({PLAIN: [0.4], DEFAULT: [0.5]}), *others]):
        (tmp_path / "ledger" / f"{number}.json").write_text(json.dumps(record))
    told: list[Table] = []
    place = SimpleNamespace(facts={}, add=lambda *tables: told.extend(tables), path=lambda suffix: tmp_path / "p.jpg")
    report(tmp_path / "ledger", place)  # type: ignore[arg-type]
    assert [table.title for table in told] == [
        "cifar10: top-1 at the end of training", "cifar10: at equal compute", "cifar10: the joint claim"
    ]  # fmt: skip
    assert Image.open(tmp_path / "p.jpg").width > 1000 and place.facts["records"] == 2


def test_the_joint_claim_needs_all_three() -> None:
    scores = {PLAIN: {0: 0.5, 1: 0.5, 2: 0.5}, DEFAULT: {0: 0.5, 1: 0.49, 2: 0.49}, "few": {0: 0.6}}
    assert verdict(DEFAULT, 2.1, 0.57, scores) == "met (3 seeds)"
    assert verdict(DEFAULT, 2.09, 0.58, scores) == "missed: throughput, memory"
    assert verdict("few", 3.0, 0.3, scores) == "met (1 seed)" and verdict("new", 3.0, 0.3, scores) == "open"
    assert verdict(DEFAULT, 3.0, 0.3, {**scores, DEFAULT: {0: 0.4, 1: 0.5}}) == "missed: accuracy"
    cost = {"forward_s": [2.0, 2.0], "superpixels_s": 0.0, "peak_bytes": 100}
    ours = {"forward_s": [0.5, 0.5], "superpixels_s": 0.5, "peak_bytes": 50}
    first = {"set": "cifar10", "batch": 64, "rows": {PLAIN: cost, DEFAULT: ours}}
    assert joint_table([first], []).rows[1][1:5] == ("4.00x", "2.00x", "-", "50%")
    told = {"rows": {PLAIN: {**cost, "compiled_s": [1.5, 1.5]}, DEFAULT: {**ours, "compiled_s": [0.25, 0.25]}}}
    assert joint_table([{**first, **told}, first], []).rows[1][3] == "2.00x"
    slower = {**first, "rows": {PLAIN: cost, DEFAULT: {**ours, "superpixels_s": 1.5}}}
    faster = {**first, "rows": {PLAIN: cost, DEFAULT: {**ours, "forward_s": [0.3, 0.3]}, "gone": ours}}
    (_, row) = joint_table([first, slower, faster], []).rows
    assert row[1:3] == ("4.00x (4.00 .. 6.67)", "2.00x (1.00 .. 2.50)")


def test_lighter_superpixels_are_rows_of_the_joint_claim() -> None:
    """Faster by their own time, with the score that the model has with them."""
    cost = {"forward_s": [2.0], "superpixels_s": 0.0, "peak_bytes": 100}
    ours = {"forward_s": [0.5], "superpixels_s": 0.5, "peak_bytes": 50, "lighter_s": {"light": 0.3, "lightest": 0.0}}
    told = {"settings": lighter_settings(), "commit": "abc"}
    measured = {"set": "cifar10", "batch": 64, "rows": {PLAIN: cost, DEFAULT: ours}, **told}
    asked = {"row": DEFAULT, "seed": 0, "scores": {"shards": 0.4, "light": 0.4, "lightest": 0.2}, **told}
    core = records({PLAIN: [0.4], DEFAULT: [0.5]})
    assert len(joint_table([measured], core, [{**asked, "trained_top1": 0.49}]).rows) == 2  # another model
    asked["trained_top1"] = 0.5
    told = {row[0]: row for row in joint_table([measured], core, [asked]).rows}
    assert list(told) == [PLAIN, DEFAULT, with_lighter(DEFAULT, "light"), with_lighter(DEFAULT, "lightest")]
    assert told["FocusViT, light superpixels"][1:] == ("4.00x", "2.50x", "-", "50%", "+10.00", "met (1 seed)")
    assert told["FocusViT, lightest superpixels"][2:] == ("4.00x", "-", "50%", "-10.00", "missed: accuracy")
    assert list(told)[:2] == [row[0] for row in joint_table([measured], core).rows]
