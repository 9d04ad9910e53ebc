"""The accuracy study: same budget for every row, a ledger that adds up, a report that recounts it."""

import json
import statistics
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from focusvit.data.batch import Batch
from focusvit.model.cost import example_inputs
from focusvit.model.model import FocusViT
from focusvit.runs.checkpoint import load_model
from focusvit.score.scoring import tally
from pipeline.errors import UsageError
from testkit.tiny_shards import make_dataset
from tests.benchmarks.report import Table
from tests.benchmarks.study import lighter, speed, study
from tests.benchmarks.study.arrays import ArrayEvalLoader, ArrayTrainLoader
from tests.benchmarks.study.ledger import best_rate
from tests.benchmarks.study.matrix import DEFAULT, LIGHTER, PLAIN, SETS, core_rows, lighter_settings, with_lighter
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

FACTS = {"commit": "abc1234"}


@pytest.mark.parametrize("set_name", SETS)
def test_every_row_is_a_model_and_controls_have_as_many_tokens(set_name: str) -> None:
    of = SETS[set_name]
    core = core_rows(of)
    for row, config in core.items():
        images, maps = example_inputs(config, 2)
        model = FocusViT(replace(config, num_classes=5)).eval()
        with torch.no_grad():
            assert model(images, maps).shape == (2, 5), row
    equal = [row for row in core if row.startswith("control: ")]
    assert len(equal) == 4
    for row in equal:
        assert (core[row].tokens or core[row].num_patches) == core[DEFAULT].tokens
        assert core[row].stem == core[DEFAULT].stem
    assert core[PLAIN].stem == "linear" and core[PLAIN].tokens is None


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of 50 + 50 drawn images in the place of Tiny ImageNet-40."""
    (tmp_path / "sets" / "tiny-imagenet-40").mkdir(parents=True)
    make_dataset(tmp_path / "sets" / "tiny-imagenet-40")
    here = {"tiny-imagenet-40": replace(SETS["tiny-imagenet-40"], test_split="train", width=32)}
    for module in (study, lighter, speed):
        monkeypatch.setattr(module, "SETS", here)
    return tmp_path / "sets"


def config_of(shards: Path, tmp_path: Path, **values: object) -> study.StudyConfig:
    given = {
        "data": str(shards), "sets": ("tiny-imagenet-40",), "epochs": 0.0 if "stage" in values else 3.0,
        "ledger": str(tmp_path / "ledger"), "runs": str(tmp_path / "runs"), "precision": "fp32",
    }  # fmt: skip
    return study.StudyConfig(**{**given, **values})  # type: ignore[arg-type]


def rates_tried(ledger: Path, rows: Iterable[str], best: float = study.RATES[2]) -> None:
    """Records of stage rates in which `best` is the best."""
    ledger.mkdir(exist_ok=True)
    for at, row in enumerate(rows):
        for lr in study.RATES:
            record = {
                "stage": "rates", "set": "tiny-imagenet-40", "row": row, "lr": lr, "seed": 0, "commit": "abc1234",
                "device": "cpu", "scores": {"top1": 0.5 if lr == best else 0.4}, "epochs": 2.0, "train_samples": 45,
                "test_samples": 5, "config": {"unknown": 1}, "data": "",
            }  # fmt: skip
            (ledger / f"tried-{at}-{lr}.json").write_text(json.dumps(record))


def test_a_run_is_repeatable_and_its_record_is_found_again(shards: Path, tmp_path: Path) -> None:
    config = config_of(shards, tmp_path, seeds=2)
    ledger, other_ledger = Path(config.ledger), tmp_path / "other"
    rates_tried(ledger, core_rows(SETS["tiny-imagenet-40"]))
    runs = [run for run in study.planned(config) if run.row == DEFAULT]
    first = study.fill(runs[0], config, FACTS)
    again = study.fill(runs[0], replace(config, ledger=str(other_ledger)), FACTS)
    other = study.fill(runs[1], config, FACTS)
    assert first["scores"]["loss"] == again["scores"]["loss"]
    assert first["scores"]["loss"] != other["scores"]["loss"]
    assert first["key"] == other["key"] and runs[0].record_path(ledger).exists()
    assert json.loads(runs[0].record_path(ledger).read_text())["scores"] == first["scores"]
    assert first["scores"]["num_samples"] == first["test_samples"] and first["commit"] == "abc1234"
    assert first["lr"] == study.RATES[2] and not list((tmp_path / "runs").iterdir())
    assert first["curve"][-1]["samples"] == first["scores"]["samples"] == 128
    assert first["curve"][-1]["top1"] == first["scores"]["top1"] and first["curve"][-1]["learned"] > 0
    # A record that is older than a setting counts too.
    run, record = runs[0], again
    assert study.recorded(other_ledger) == {(run.key(), 0)} and len(study.recorded(ledger)) == 2
    del record["config"]["freeze"], record["config"]["optim"]["lr_scales"]
    run.record_path(other_ledger).write_text(json.dumps(record))
    assert study.recorded(other_ledger) == {(run.key(), 0)}
    record["config"]["optim"]["gone"] = 1
    run.record_path(other_ledger).write_text(json.dumps(record))
    assert study.recorded(other_ledger) == set()


def test_a_stopped_run_goes_on_in_the_next_sitting(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(shards, tmp_path, epochs=6.0)
    rates_tried(Path(config.ledger), core_rows(SETS["tiny-imagenet-40"]))
    (run,) = [run for run in study.planned(config) if run.row == "control: uniform grid"]
    run = replace(run, config=replace(run.config, global_batch=25))
    whole = study.fill(run, replace(config, ledger=str(tmp_path / "other"), runs=str(tmp_path / "elsewhere")), FACTS)

    peek, left = ArrayTrainLoader.peek, iter(range(7))

    def cut(self: ArrayTrainLoader) -> Batch:
        if next(left, None) is None:
            raise InterruptedError
        return peek(self)

    with monkeypatch.context() as patched, pytest.raises(InterruptedError):
        patched.setattr(ArrayTrainLoader, "peek", cut)
        study.fill(run, config, FACTS)
    assert len(list((tmp_path / "runs").iterdir())) == 1 and not run.record_path(Path(config.ledger)).exists()
    resumed = study.fill(run, config, FACTS)
    assert resumed["scores"] == whole["scores"] and resumed["curve"] == whole["curve"]


def test_the_rate_of_a_row_is_the_best_on_held_out_images(shards: Path, tmp_path: Path) -> None:
    config = config_of(shards, tmp_path, rows=(PLAIN,), stage="rates", checkpoints=str(tmp_path / "kept"))
    runs = list(study.planned(config))
    assert [run.config.optim.lr for run in runs] == list(study.RATES)
    record = study.fill(runs[0], config, FACTS)
    assert record["train_samples"] + record["test_samples"] == 50 and record["stage"] == "rates"
    assert not (tmp_path / "kept").exists()  # a model of the end of a training alone is kept
    with pytest.raises(UsageError, match=r"learning rate 0.0015, 0.003 of 'ViT' .*--stage rates"):
        list(study.planned(replace(config, stage="core")))
    rates_tried(Path(config.ledger), [PLAIN], best=study.RATES[0])
    Path(config.ledger, "speed-tiny-imagenet-40-1.json").write_text('{"stage": "speed", "set": "tiny-imagenet-40"}')
    (run,) = study.planned(replace(config, stage="core"))
    assert run.config.optim.lr == study.RATES[0]
    assert best_rate(study.read_ledger(Path(config.ledger)), "tiny-imagenet-40", PLAIN, study.RATES) == study.RATES[0]


def test_the_key_changes_with_everything_but_the_seed(shards: Path, tmp_path: Path) -> None:
    run = next(study.planned(config_of(shards, tmp_path, stage="rates")))
    assert replace(run, config=replace(run.config, seed=7)).key() == run.key()
    others = [
        replace(run, epochs=4.0),
        replace(run, data_identity="other"),
        replace(run, stage="core"),
        replace(run, config=replace(run.config, global_batch=32)),
        replace(run, config=replace(run.config, model=replace(run.config.model, width=48))),
    ]
    assert len({run.key(), *(other.key() for other in others)}) == 6


def test_a_kept_checkpoint_is_the_scored_model(shards: Path, tmp_path: Path) -> None:
    config = config_of(shards, tmp_path, checkpoints=str(tmp_path / "kept"))
    rates_tried(Path(config.ledger), core_rows(SETS["tiny-imagenet-40"]))
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
    rates_tried(Path(config.ledger), (PLAIN, DEFAULT))
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


def records(top1: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Of CIFAR-10, with a curve of ten points that rises to the score in equal steps."""
    return [
        {"row": row, "seed": seed, "set": "cifar10", "stage": "core", "train_samples": 100, "test_samples": 50,
         "lr": 1e-3, "epochs": 10.0, "multiply_adds": 4_000_000 if row == PLAIN else 1_000_000,
         "commit": "abc", "device": "cpu",
         "curve": [{"samples": 100 * (at + 1), "top1": value * (at + 1) / 10, "loss": 1.0, "learned": 0.5}
                   for at in range(10)],
         "scores": {"top1": value, "samples": 1000, "num_samples": 50}}
        for row, values in top1.items() for seed, value in enumerate(values)
    ]  # fmt: skip


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


def test_no_record_of_speed_is_written_over(tmp_path: Path) -> None:
    """Neither after one was removed, nor that of a set whose name is the beginning of another's."""
    for name in ("tiny-imagenet-40-1", "tiny-imagenet-40-3", "tiny-imagenet-40-256-patches-7"):
        (tmp_path / f"speed-{name}.json").touch()
    assert speed.new_record(tmp_path, "tiny-imagenet-40").name == "speed-tiny-imagenet-40-4.json"
    assert speed.new_record(tmp_path, "cifar10").name == "speed-cifar10-1.json"


def test_a_kept_model_is_asked_with_lighter_superpixels(shards: Path, tmp_path: Path) -> None:
    """Its score with the maps of the shards is that of its training, and a model without maps is not asked."""
    config = config_of(shards, tmp_path, checkpoints=str(tmp_path / "kept"))
    ledger = Path(config.ledger)
    rates_tried(ledger, core_rows(SETS["tiny-imagenet-40"]))
    runs = [run for run in study.planned(config) if run.row in (DEFAULT, "control: uniform grid")]
    scores = {run.row: study.fill(run, config, FACTS)["scores"] for run in runs}
    asked = (config.data, config.sets, (), 1, config.checkpoints, study.arrays, ledger, FACTS)
    (found,) = lighter.lighter_records(*asked)
    assert found["scores"].keys() == {"shards", *LIGHTER} and found["row"] == DEFAULT
    assert found["scores"]["shards"] == pytest.approx(scores[DEFAULT]["top1"], abs=0.021)  # bfloat16: one image
    assert json.loads((ledger / "lighter-tiny-imagenet-40-focusvit-0.json").read_text()) == found
    assert study.recorded(ledger) >= {(run.key(), 0) for run in runs}
    assert found["trained_top1"] == scores[DEFAULT]["top1"] and found["settings"] == lighter_settings()
    for other in ((*asked[:4], "/nowhere", *asked[5:]), (*asked[:2], ("control: uniform grid",), *asked[3:])):
        with pytest.raises(UsageError, match="holds no trained model of these rows that takes maps"):
            list(lighter.lighter_records(*other))


def test_lighter_maps_lie_on_their_images() -> None:
    """Two regions of an image that is dark on the left, and of one that is dark above."""
    image = torch.full((3, 32, 32), 40, dtype=torch.uint8)
    left, above = image.clone(), image.clone()
    left[:, :, 16:] = 220
    above[:, 16:] = 220
    for settings in LIGHTER.values():
        found = lighter.maps_of(torch.stack([left, above]), SETS["cifar10"], settings, 2).long()
        for one, image in zip(found, (left, above)):
            assert (one == (image[0] > 99).long()).float().mean() > 0.9  # a border may lie a pixel beside


def test_speeds_have_every_row_and_what_the_tables_read(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiler is left out; its forward is the model's own."""
    monkeypatch.setattr(torch, "compile", lambda model, **how: model)
    monkeypatch.setattr(speed, "BATCH", 4)
    place = speed.measure_speed(str(shards), "tiny-imagenet-40", tmp_path, study.arrays, FACTS, rounds=1)
    record = json.loads(place.read_text())
    found = speed.speedups(record)
    every = list(core_rows(SETS["tiny-imagenet-40"]))
    assert list(record["rows"]) == every and found.keys() >= set(every)
    assert {with_lighter(DEFAULT, name) for name in LIGHTER} <= found.keys()
    assert with_lighter(PLAIN, "light") not in found
    assert all(one.bare > 0 and one.compiled and one.memory > 0 for one in found.values())
    assert found[PLAIN] == (1.0, 1.0, 1.0, 1.0) and speed.training_costs(record)[DEFAULT] > 0
    del record["settings"]["light"]
    assert with_lighter(DEFAULT, "light") not in speed.speedups(record)


def test_stages_refuse_what_they_do_not_use() -> None:
    for values, message in (
        ({"stage": "speed", "rows": (PLAIN,)}, "stage speed does not use --rows: leave it out"),
        ({"stage": "rates", "seeds": 3, "epochs": 2.0}, "stage rates does not use --seeds, --epochs"),
        ({"stage": "lighter", "device": "cuda"}, "stage lighter does not use --device"),
        ({"stage": "lighter"}, "name their folder by --checkpoints"),
    ):
        with pytest.raises(ValueError, match=message):
            study.StudyConfig(**values)  # type: ignore[arg-type]


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


def test_an_unknown_set_is_named() -> None:
    with pytest.raises(ValueError, match="imagenet-22k"):
        study.StudyConfig(sets=("imagenet-22k",))
