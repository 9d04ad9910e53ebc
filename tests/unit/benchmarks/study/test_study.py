"""The accuracy study: same budget for every row, and a ledger that adds up."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from focusvit.data.batch import Batch
from focusvit.model.cost import example_inputs
from focusvit.model.model import FocusViT
from focusvit.runs.checkpoint import load_model
from focusvit.score.scoring import tally
from pipeline.errors import UsageError
from testkit.study_ledger import FACTS, config_of, rates_tried
from tests.benchmarks.study import study
from tests.benchmarks.study.arrays import ArrayEvalLoader, ArrayTrainLoader
from tests.benchmarks.study.ledger import best_rate
from tests.benchmarks.study.matrix import DEFAULT, PLAIN, SETS, core_rows


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
    assert len(equal) == 5
    for row in equal:
        assert (core[row].tokens or core[row].num_patches) == core[DEFAULT].tokens
        assert core[row].stem == core[DEFAULT].stem
    assert core[PLAIN].stem == "linear" and core[PLAIN].tokens is None
    for end in ("", ", no grid block"):  # a grid differs from superpixels in its regions alone
        assert replace(core[f"control: uniform grid{end}"], partition="superpixel") == core[f"{DEFAULT}{end}"]


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


def test_stages_refuse_what_they_do_not_use() -> None:
    for values, message in (
        ({"stage": "speed", "rows": (PLAIN,)}, "stage speed does not use --rows: leave it out"),
        ({"stage": "rates", "seeds": 3, "epochs": 2.0}, "stage rates does not use --seeds, --epochs"),
        ({"stage": "lighter", "device": "cuda"}, "stage lighter does not use --device"),
        ({"stage": "lighter"}, "name their folder by --checkpoints"),
    ):
        with pytest.raises(ValueError, match=message):
            study.StudyConfig(**values)  # type: ignore[arg-type]


def test_an_unknown_set_is_named() -> None:
    with pytest.raises(ValueError, match="imagenet-22k"):
        study.StudyConfig(sets=("imagenet-22k",))


def test_a_missing_set_is_told_before_anything_is_measured(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "SETS", {**study.SETS, "imagenette": SETS["imagenette"]})
    monkeypatch.setattr(study, "begin", lambda name, config, argv, packages: (asked, None))
    asked = study.StudyConfig(
        data=str(shards), sets=("tiny-imagenet-40", "imagenette"), stage="speed", ledger=str(tmp_path / "ledger")
    )
    with pytest.raises(UsageError, match="imagenette"):
        study.main([])
    assert not (tmp_path / "ledger").exists()
