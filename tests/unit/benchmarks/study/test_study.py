"""The accuracy study: same budget for every row, a ledger that adds up, a report that recounts it."""

import json
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from focusvit.model.cost import example_inputs
from focusvit.model.model import FocusViT
from focusvit.runs.checkpoint import load_model
from focusvit.score.scoring import tally
from pipeline.errors import UsageError
from testkit.tiny_shards import make_dataset
from tests.benchmarks.study import study
from tests.benchmarks.study.arrays import ArrayEvalLoader
from tests.benchmarks.study.matrix import DEFAULT, LIGHT, PLAIN, SETS, core_rows, selection_rows
from tests.benchmarks.study.report import against, interval, joint_table, score_table, verdict
from tests.benchmarks.study.speed import new_record

FACTS = {"commit": "abc1234"}


@pytest.mark.parametrize("set_name", SETS)
def test_every_row_is_a_model_and_controls_have_as_many_tokens(set_name: str) -> None:
    of = SETS[set_name]
    rows = {**core_rows(of), **selection_rows(of)}
    for row, config in rows.items():
        images, maps = example_inputs(config, 2)
        model = FocusViT(replace(config, num_classes=5)).eval()
        with torch.no_grad():
            assert model(images, maps).shape == (2, 5), row
    core = core_rows(of)
    equal = [row for row in core if row.startswith("control: ")]
    assert len(equal) == 5
    for row in equal:
        assert (core[row].tokens or core[row].num_patches) == core[DEFAULT].tokens
        assert core[row].stem == core[DEFAULT].stem
    assert core[PLAIN].stem == "linear" and core[PLAIN].tokens is None


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of 50 + 50 drawn images in the place of Tiny ImageNet-40."""
    (tmp_path / "sets" / "tiny-imagenet-40").mkdir(parents=True)
    make_dataset(tmp_path / "sets" / "tiny-imagenet-40")
    monkeypatch.setattr(study, "SETS", {"tiny-imagenet-40": replace(SETS["tiny-imagenet-40"], test_split="train")})
    return tmp_path / "sets"


def config_of(shards: Path, tmp_path: Path, **values: object) -> study.StudyConfig:
    given = {"data": str(shards), "sets": ("tiny-imagenet-40",), "samples": 128, "ledger": str(tmp_path / "ledger")}
    return study.StudyConfig(**{**given, **values})  # type: ignore[arg-type]


def test_a_run_is_repeatable_and_its_record_is_found_again(shards: Path, tmp_path: Path) -> None:
    config = config_of(shards, tmp_path, seeds=2)
    runs = [run for run in study.planned(config) if run.row == DEFAULT]
    ledger = Path(config.ledger)
    first = study.fill(runs[0], config, FACTS)
    again = study.fill(runs[0], replace(config, ledger=str(tmp_path / "other")), FACTS)
    other = study.fill(runs[1], config, FACTS)
    assert first["scores"]["loss"] == again["scores"]["loss"]
    assert first["scores"]["loss"] != other["scores"]["loss"]
    assert first["key"] == other["key"] and runs[0].record_path(ledger).exists()
    assert json.loads(runs[0].record_path(ledger).read_text())["scores"] == first["scores"]
    assert first["scores"]["num_samples"] == first["test_samples"] and first["commit"] == "abc1234"
    # A record that is older than a setting counts too.
    ledger, (run, record) = tmp_path / "other", (runs[0], again)
    assert study.recorded(ledger) == {(run.key(), 0)} and len(study.recorded(Path(config.ledger))) == 2
    del record["config"]["freeze"], record["config"]["optim"]["lr_scales"]
    run.record_path(ledger).write_text(json.dumps(record))
    assert study.recorded(ledger) == {(run.key(), 0)}
    record["config"]["optim"]["gone"] = 1
    run.record_path(ledger).write_text(json.dumps(record))
    assert study.recorded(ledger) == set()


def test_the_key_changes_with_everything_but_the_seed(shards: Path, tmp_path: Path) -> None:
    run = next(study.planned(config_of(shards, tmp_path)))
    assert replace(run, config=replace(run.config, seed=7)).key() == run.key()
    others = [
        replace(run, samples=256),
        replace(run, data_identity="other"),
        replace(run, stage="select"),
        replace(run, config=replace(run.config, global_batch=32)),
        replace(run, config=replace(run.config, model=replace(run.config.model, width=48))),
    ]
    assert len({run.key(), *(other.key() for other in others)}) == 6


def test_a_kept_checkpoint_is_the_scored_model(shards: Path, tmp_path: Path) -> None:
    config = config_of(shards, tmp_path, seeds=1, checkpoints=str(tmp_path / "kept"))
    (run,) = [run for run in study.planned(config) if run.row == "control: uniform grid"]
    scores = study.fill(run, config, FACTS)["scores"]
    folder = tmp_path / "kept" / "tiny-imagenet-40" / "control-uniform-grid-0"
    elsewhere = replace(config, checkpoints=str(tmp_path / "elsewhere"))
    assert study.lacks_checkpoint(run, elsewhere) and not study.lacks_checkpoint(run, config)
    assert not study.lacks_checkpoint(run, replace(config, checkpoints=""))
    model, record = load_model(str(folder), torch.device("cpu"))
    test = study.arrays(f"{shards}/tiny-imagenet-40", "train", 64, 32, None)
    found = tally(model, ArrayEvalLoader(test, batch_size=25), num_samples=50, num_classes=4, device="cpu").metrics()
    assert found["loss"] == pytest.approx(scores["loss"], rel=1e-4) and record.metrics["val/top1"] == scores["top1"]


def test_only_the_named_rows_run(shards: Path, tmp_path: Path) -> None:
    config = config_of(shards, tmp_path, seeds=2, rows=(PLAIN, DEFAULT))
    assert [(run.row, run.config.seed) for run in study.planned(config)] == [
        (row, seed) for seed in (0, 1) for row in (PLAIN, DEFAULT)
    ]
    with pytest.raises(UsageError, match="--rows names 'VIT'; the rows of tiny-imagenet-40 are ViT, "):
        list(study.planned(config_of(shards, tmp_path, rows=("VIT",))))


def test_what_is_held_out_is_never_learned_from(shards: Path) -> None:
    data = study.arrays(f"{shards}/tiny-imagenet-40", "train", 64, 32, 16)
    rest, held = study.hold_out(data, 0.3)
    assert len(rest) + len(held) == len(data) and 5 <= len(held) <= 25
    rows = {tuple(image.flatten().tolist()) for image in rest.images}
    assert not rows & {tuple(image.flatten().tolist()) for image in held.images}
    assert held.maps is not None and len(held.maps) == len(held.class_ids) == len(held)


def test_the_table_recounts_the_ledger() -> None:
    top1 = {PLAIN: [0.40, 0.42, 0.41], DEFAULT: [0.41, 0.41, 0.43], "control: uniform grid": [0.30]}
    records = [
        {"row": row, "seed": seed, "set": "cifar10", "stage": "core", "train_samples": 100, "test_samples": 50,
         "scores": {"top1": value, "samples": 64}}
        for row, values in top1.items() for seed, value in enumerate(values)
    ]  # fmt: skip
    table = {row[0]: row for row in score_table(records, "cifar10", "core", 64).rows}
    assert table[DEFAULT][2] == f"{statistics.mean(top1[DEFAULT]):.2%}"
    assert [table[row][5] for row in top1] == [2, 1, 3]
    # Points +1, -1, +2: mean 0.67, standard error 0.88, 4.303 of them on two degrees of freedom.
    assert table[DEFAULT][4] == "+0.67 (-3.1 .. +4.5)"
    assert table["control: uniform grid"][3] == "-" and interval([0.3]) == "-"
    assert against({3: 0.5}, {4: 0.5}) == "-"


def test_the_joint_claim_needs_all_three_and_three_seeds() -> None:
    scores = {PLAIN: {0: 0.5, 1: 0.5, 2: 0.5}, DEFAULT: {0: 0.5, 1: 0.49, 2: 0.49}, "few": {0: 0.6}}
    assert verdict(DEFAULT, 2.1, 0.57, scores) == "met"
    assert verdict(DEFAULT, 2.09, 0.58, scores) == "missed: throughput, memory"
    assert verdict("few", 3.0, 0.3, scores) == "open (1 of 3 seeds)"
    assert verdict(DEFAULT, 3.0, 0.3, {**scores, DEFAULT: {0: 0.4, 1: 0.5}}) == "missed: accuracy"
    cost = {"forward_s": [2.0, 2.0], "superpixels_s": 0.0, "peak_bytes": 100}
    ours = {"forward_s": [0.5, 0.5], "superpixels_s": 0.5, "peak_bytes": 50}
    first = {"set": "cifar10", "batch": 64, "rows": {PLAIN: cost, DEFAULT: ours}}
    assert joint_table([first], []).rows[1][1:4] == ("4.00x", "2.00x", "50%")
    slower = {**first, "rows": {PLAIN: cost, DEFAULT: {**ours, "superpixels_s": 1.5}}}
    faster = {**first, "rows": {PLAIN: cost, DEFAULT: {**ours, "forward_s": [0.3, 0.3]}, "gone": ours}}
    (_, row) = joint_table([first, slower, faster], []).rows
    assert row[1:3] == ("4.00x (4.00 .. 6.67)", "2.00x (1.00 .. 2.50)")


def test_no_record_of_speed_is_written_over(tmp_path: Path) -> None:
    """Neither after one was removed, nor that of a set whose name is the beginning of another's."""
    for name in ("tiny-imagenet-40-1", "tiny-imagenet-40-3", "tiny-imagenet-40-256-patches-7"):
        (tmp_path / f"speed-{name}.json").touch()
    assert new_record(tmp_path, "tiny-imagenet-40").name == "speed-tiny-imagenet-40-4.json"
    assert new_record(tmp_path, "cifar10").name == "speed-cifar10-1.json"


def test_rows_with_light_superpixels_differ_in_their_shards_only() -> None:
    of = SETS["tiny-imagenet-40-256-patches"]
    rows = core_rows(of)
    light = [row for row in rows if of.folder_of(row) == of.light_folder]
    assert light and all(rows[row] == rows[row.removesuffix(LIGHT)] for row in light)
    assert all(of.folder_of(row.removesuffix(LIGHT)) == of.folder for row in light)
    assert not any(row.endswith(LIGHT) for row in core_rows(SETS["cifar10"]))


def test_an_unknown_set_is_named() -> None:
    with pytest.raises(ValueError, match="imagenet-22k"):
        study.StudyConfig(sets=("imagenet-22k",))
