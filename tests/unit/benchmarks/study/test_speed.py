"""Speeds of every row, and trained models that are asked with lighter superpixels."""

import json
from pathlib import Path

import pytest
import torch

from pipeline.errors import UsageError
from testkit.study_ledger import FACTS, config_of, rates_tried
from tests.benchmarks.study import lighter, speed, study
from tests.benchmarks.study.matrix import DEFAULT, LIGHTER, PLAIN, SETS, core_rows, lighter_settings, with_lighter


def test_no_record_of_speed_is_written_over(tmp_path: Path) -> None:
    """Neither after one was removed, nor that of a set whose name is the beginning of another's."""
    for name in ("tiny-imagenet-40-1", "tiny-imagenet-40-3", "tiny-imagenet-40-256-patches-7"):
        (tmp_path / f"speed-{name}.json").touch()
    assert speed.new_record(tmp_path, "tiny-imagenet-40").name == "speed-tiny-imagenet-40-4.json"
    assert speed.new_record(tmp_path, "cifar10").name == "speed-cifar10-1.json"


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
