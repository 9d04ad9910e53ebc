"""Damage in the files of a run is said by name; what is sound is used, and nothing wrong is used in silence."""

import contextlib
import dataclasses
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from focusvit.predict.onnx_predictor import read_record
from focusvit.runs import checkpoint_record
from focusvit.runs.checkpoint import add_scores, load_checkpoint, load_model, newest_sound, read_confusion, record_at
from focusvit.runs.metrics_log import MetricsLog
from focusvit.runs.run_dir import RunDir
from focusvit.runs.sealed_json import SEAL
from focusvit.train.loop import train
from pipeline.errors import DataError, UsageError
from testkit.damage import flip
from testkit.tiny_checkpoint import make_checkpoint
from testkit.tiny_shards import make_dataset
from testkit.tiny_training import Stop, final_tensors, small, values_of

CONFIG = small(epochs=1.4, eval_every_epochs=1.0, checkpoint_every_epochs=0.3)  # checkpoints at 17, 34, 51 and 68


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_dataset(tmp_path_factory.mktemp("data"))


def die_at(last: int):
    def die(samples: int, metrics: dict) -> None:
        if samples == last:
            raise Stop

    return die


@pytest.fixture(scope="module")
def stopped(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that a kill ended after its third checkpoint: two are kept."""
    folder = tmp_path_factory.mktemp("runs") / "stopped"
    with contextlib.suppress(Stop):
        train(CONFIG, data_uri=data, run_dir=str(folder), on_checkpoint=die_at(51))
    return folder


@pytest.fixture(scope="module")
def whole(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(CONFIG, data_uri=data, run_dir=str(folder))
    return folder


FILES = ["model.safetensors", "state.safetensors", "checkpoint.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", [0.02, 0.5, 0.97])
def test_a_flipped_byte_in_the_latest_checkpoint(
    name: str, where: float, data: str, stopped: Path, whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is named, the run goes on from the one before and ends as if nothing had been."""
    run = shutil.copytree(stopped, tmp_path / "run")
    flip(run / "checkpoints" / "000000000051" / name, where)
    train(CONFIG, data_uri=data, run_dir=str(run))
    assert f"000000000051/{name} is " in caplog.text and "goes on from an older checkpoint" in caplog.text
    assert values_of(run) == values_of(whole)
    found, expected = final_tensors(run), final_tensors(whole)
    assert found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in found)


def edit(place: Path, **changes: object) -> None:
    place.write_text(json.dumps({**json.loads(place.read_text()), **changes}))


def cut(place: Path) -> None:
    place.write_bytes(place.read_bytes()[: place.stat().st_size // 2])


def unsealed(place: Path) -> dict:
    values = json.loads((place / "checkpoint.json").read_text())
    return {key: value for key, value in values.items() if key not in (SEAL, "files")}


DAMAGES = {
    "an edited position": lambda place: edit(place / "checkpoint.json", samples_seen=34),
    "an unknown key": lambda place: edit(place / "checkpoint.json", speed=1),
    "no weights": lambda place: (place / "model.safetensors").unlink(),
    "a cut record": lambda place: cut(place / "checkpoint.json"),
    "a cut state": lambda place: cut(place / "state.safetensors"),
    "a deep record": lambda place: (place / "checkpoint.json").write_text('{"a":' * 99_999 + "1" + "}" * 99_999),
    "a list": lambda place: (place / "checkpoint.json").write_text("[1]"),
    "no text": lambda place: (place / "checkpoint.json").write_bytes(b"\xff\xfe\x00"),
    "an empty file": lambda place: (place / "checkpoint.json").write_bytes(b""),
    "no hashes": lambda place: edit(place / "checkpoint.json", files={}, **{SEAL: None}),
    "no seal": lambda place: (place / "checkpoint.json").write_text(json.dumps(unsealed(place))),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_other_damage_of_the_latest_checkpoint(damage, stopped: Path, tmp_path: Path, caplog) -> None:
    run = shutil.copytree(stopped, tmp_path / "run")
    damage(run / "checkpoints" / "000000000051")
    assert newest_sound(RunDir(str(run))) == 34 and "000000000051/" in caplog.text
    assert RunDir(str(run)).checkpoints() == [34]


def test_a_run_whose_checkpoints_are_all_damaged_begins_anew(data: str, stopped: Path, whole: Path, tmp_path) -> None:
    run = shutil.copytree(stopped, tmp_path / "run")
    for name in ("000000000034", "000000000051"):
        flip(run / "checkpoints" / name / "state.safetensors", 0.9)
    train(CONFIG, data_uri=data, run_dir=str(run))
    assert values_of(run) == values_of(whole)


def test_a_reader_takes_the_next_best_of_a_run_and_refuses_a_damaged_folder(stopped: Path, tmp_path, caplog) -> None:
    run = shutil.copytree(stopped, tmp_path / "run")
    assert load_checkpoint(str(run)).samples_seen == 51  # the scored one
    flip(run / "checkpoints" / "000000000051" / "model.safetensors", 0.7)
    _, record = load_model(str(run))
    assert record.samples_seen == load_checkpoint(str(run)).samples_seen == 34
    assert "000000000051/model.safetensors is not what was written" in caplog.text
    assert f"Taken instead: {run}/checkpoints/000000000034" in caplog.text
    with pytest.raises(DataError, match="sha256 is another"):
        load_model(f"{run}/checkpoints/000000000051")
    flip(run / "checkpoints" / "000000000034" / "checkpoint.json", 0.5)
    with pytest.raises(DataError, match=r"051/model.* \S*034/checkpoint\.json is .*Take another"):
        load_checkpoint(str(run))


def without_hashes(folder: Path) -> Path:
    """The checkpoint as an earlier version wrote it."""
    (folder / "checkpoint.json").write_text(json.dumps({**unsealed(folder), "format_version": 1}))
    return folder


def test_an_earlier_checkpoint_is_read_and_said_once(tmp_path: Path, caplog, monkeypatch) -> None:
    monkeypatch.setattr(checkpoint_record, "_said_unproven", False)
    old = without_hashes(Path(make_checkpoint(tmp_path / "old")))
    _, record = load_model(str(old))
    assert load_checkpoint(str(old)).files == {} and record.samples_seen == 1000
    assert caplog.text.count("holds no hashes") == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classes": 7}, "'classes' is '7'"),
        ({"model": {}}, "'model.num_classes' is missing"),
        ({"model": {"num_classes": 4, "width": "wide"}}, "model"),
        ({"samples_seen": "many"}, "'samples_seen' is 'many'"),
        ({"metrics": {"val/top1": "good"}}, "a score is no number"),
        ({"speed": 3}, "unknown key 'speed'"),
    ],
)
def test_an_earlier_checkpoint_that_is_damaged_is_named(changes: dict, words: str, tmp_path: Path) -> None:
    old = without_hashes(Path(make_checkpoint(tmp_path / "old")))
    edit(old / "checkpoint.json", **changes)
    with pytest.raises(DataError, match=words):
        load_model(str(old))


def test_a_later_format_is_told_apart_from_damage(tmp_path: Path) -> None:
    place = make_checkpoint(tmp_path / "later")
    record = dataclasses.replace(record_at(place), format_version=3)
    checkpoint_record.put_record(record)
    with pytest.raises(UsageError, match="checkpoint format 3, this version reads 2"):
        load_checkpoint(place)
    edit(tmp_path / "later" / "checkpoint.json", format_version=9)
    with pytest.raises(DataError, match="not what was written"):
        load_checkpoint(place)


def test_weights_that_are_no_numbers_are_refused_by_every_reader(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    place = Path(make_checkpoint(tmp_path / "nan"))
    weights = load_file(place / "model.safetensors")
    weights["head.weight"][0, 0] = torch.nan
    save_file(weights, place / "model.safetensors")
    without_hashes(place)
    with pytest.raises(DataError, match=r"the first is head\.weight.*diverged"):
        load_model(str(place))


def test_scores_are_added_to_a_saved_checkpoint(tmp_path: Path) -> None:
    place = make_checkpoint(tmp_path / "one")
    before = record_at(place)
    add_scores(place, {"val/top1": 0.25, "val/loss": float("nan")}, np.array([[1, 0], [2, 1]]))
    after = load_checkpoint(place)
    assert after.metrics["val/top1"] == 0.25 and after.metrics["val/loss"] != after.metrics["val/loss"]
    assert dataclasses.replace(after, metrics=before.metrics, files=before.files) == before
    counts = read_confusion(after)
    assert counts is not None and counts.tolist() == [[1, 0], [2, 1]] and read_confusion(before) is None
    flip(tmp_path / "one" / "confusion.npy", 0.95)
    with pytest.raises(DataError, match=r"confusion\.npy is not what was written"):
        read_confusion(after)
    assert "NaN" not in (tmp_path / "one" / "checkpoint.json").read_text()


@pytest.mark.parametrize("damage", [cut, lambda p: p.write_text("{" * 5000), lambda p: flip(p, 0.5)])
def test_a_damaged_config_or_run_file_never_ends_a_run(
    damage, data: str, stopped: Path, whole, tmp_path, caplog
) -> None:
    run = shutil.copytree(stopped, tmp_path / "run")
    RunDir(str(run)).set_info({"run_id": "a"})
    for name in ("config.json", "run.json"):
        damage(run / name)
    assert RunDir(str(run)).info() == {} and f"{run}/run.json is " in caplog.text
    with pytest.raises(UsageError, match="seed: 0 -> 5"):  # the checkpoint knows what it was made with
        train(dataclasses.replace(CONFIG, seed=5), data_uri=data, run_dir=str(run))
    train(CONFIG, data_uri=data, run_dir=str(run))
    assert f"{run}/config.json is " in caplog.text and values_of(run) == values_of(whole)


def test_a_bad_line_of_the_points_is_named_and_the_others_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = RunDir(str(tmp_path))
    log = MetricsLog(run)
    for samples in range(10, 60, 10):
        log.append(samples, {"loss": 1 / samples, "top1": float("nan")})
    place = tmp_path / "metrics.jsonl"
    lines = place.read_bytes().splitlines(keepends=True)
    assert b"NaN" not in lines[0] and b"null" in lines[0]
    lines[1] = lines[1].replace(b"0.05", b"0.06")
    lines[3] = b'{"a":' * 9999 + b"\n"
    place.write_bytes(b"".join(lines) + b'{"samples": 5, "time_ms": 0, "values": {"loss": 2}}\n[]\n')
    with caplog.at_level(logging.WARNING):
        points = MetricsLog(run).points
    assert [point["samples"] for point in points] == [10, 30, 50, 5]  # the last is of an earlier version
    assert [f"line {number} is damaged" in caplog.text for number in (1, 2, 3, 4, 5, 6, 7)] == [
        False, True, False, True, False, False, True
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text", ['{"a":' * 99_999 + "1" + "}" * 99_999, "{", "[]", "7", '{"format_version": 1, "x": 1}']
)
def test_a_damaged_record_of_an_exported_file_is_named(text: str) -> None:
    with pytest.raises(DataError, match=r"model\.onnx: its record"):
        read_record(text, "model.onnx")
