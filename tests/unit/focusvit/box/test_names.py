"""A model of the box is known by its name wherever a checkpoint is asked for; its weights are half as large."""

import json
import logging
from pathlib import Path

import pytest
import torch

from cluster.jobs.places import check_for_job
from cluster.train.launch import finetune_options
from cluster.train.pretrain import with_absolute_places
from focusvit.box import names as box
from focusvit.cli import main
from focusvit.recipes.small import debug, finetune
from focusvit.runs.checkpoint import load_checkpoint, load_model, load_weights, read_checkpoint
from pipeline.errors import DataError, UsageError
from testkit.tiny_checkpoint import edit_checkpoint, make_checkpoint
from tests.benchmarks.__main__ import BENCHES
from tests.benchmarks.train.box import pack

ABOUT = box.About(
    made="nothing was learned", data=("none",), licence="Apache-2.0", commands=("make nothing",), scores={"kNN": "7 %"}
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = make_checkpoint(tmp_path_factory.mktemp("run") / "of-this-machine")
    record = read_checkpoint(place)[0]
    taught = {"teacher": "/of-this-machine/vit", "weight": 1.0}
    config = {**record.config, "model": record.model, "distill": taught}
    return edit_checkpoint(place, config=config, data_uri="/of-this-machine/shards", run_id="abc")


@pytest.fixture
def model(run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`tiny-test` in a box of its own; the current folder is an empty one beside it."""
    for module in ("focusvit.box.names", "focusvit.recipes.models", "tests.benchmarks.train.box"):
        monkeypatch.setattr(f"{module}.BOX", tmp_path / "box")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return pack(run, "tiny-test", ABOUT)


def test_weights_are_halves_in_the_file_and_float32_in_the_model(model: Path, run: str) -> None:
    assert {value.dtype for value in load_weights(str(model)).values()} == {torch.float16}
    loaded, whole = load_model("tiny-test")[0].state_dict(), load_model(run)[0].state_dict()
    for name, value in whole.items():
        assert loaded[name].dtype == torch.float32
        torch.testing.assert_close(loaded[name], value.half().float(), rtol=0, atol=0)


def test_nothing_of_the_machine_is_packed(model: Path) -> None:
    assert b"of-this-machine" not in b"".join(path.read_bytes() for path in model.iterdir())
    assert read_checkpoint("tiny-test")[0].config["distill"] == {"teacher": None, "weight": 1.0}


def test_a_path_of_that_name_wins_and_that_is_said(model: Path, run: str, caplog: pytest.LogCaptureFixture) -> None:
    assert box.names() == ["tiny-test"] and box.checkpoint_place("tiny-test") == str(model)
    make_checkpoint(Path("tiny-test"), samples_seen=77)
    with caplog.at_level(logging.WARNING):
        assert load_model(box.checkpoint_place("tiny-test"))[1].samples_seen == 77
    assert "not the model 'tiny-test'" in caplog.text


def test_every_place_of_a_training_takes_the_name(model: Path) -> None:
    argv = ["--checkpoint", "tiny-test", "--data", "d", "--run-dir", "r", "--distill.teacher", "tiny-test"]
    training = with_absolute_places(finetune_options(argv).training)
    assert training.init_from == training.distill.teacher == str(model)
    assert training.model.tokens == 9 != debug().model.tokens
    check_for_job(["finetune", *argv[:2], "--data", "/d", "--run-dir", "/r"], None)  # it travels with the code
    with pytest.raises(UsageError, match="--checkpoint tiny-tset is relative"):
        check_for_job(["finetune", "--checkpoint", "tiny-tset", "--data", "/d", "--run-dir", "/r"], None)


@pytest.mark.parametrize(
    "argv", [["info", "tiny-test"], ["cost", "tiny-test", "--rounds", "1", "--batch", "1"], ["models"]]
)
def test_verbs_that_tell_of_a_model_take_the_name(
    model: Path, capsys: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    assert main(argv) == 0
    assert "tiny-test" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["predict", "look", "export"])
def test_verbs_that_use_a_model_take_the_name(model: Path, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    from PIL import Image

    Image.new("RGB", (48, 40), (200, 30, 30)).save("red.png")
    argv = {"predict": ["red.png"], "look": ["red.png", "--out", "looks"], "export": ["--out", "model.pt2"]}[verb]
    assert main([verb, *argv, "--checkpoint", "tiny-test"]) == 0
    assert str(model) in capsys.readouterr().out


def test_the_list_says_size_making_and_scores(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    parameters = sum(value.numel() for value in load_weights(str(model)).values())
    assert found["parameters"] == parameters and 2 * parameters < found["bytes"] < 2 * parameters + 5000
    assert (found["image_px"], found["tokens"], found["made"]) == (32, 9, ABOUT.made)
    assert main(["models"]) == 0
    assert "score    kNN: 7 %" in capsys.readouterr().out


def test_a_mistyped_name_brings_the_one_that_was_meant(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", "--checkpoint", "tiny-tset", "--data", "d", "--run-dir", "r"]) == 2
    said = capsys.readouterr().err
    assert "Did you mean 'tiny-test'?" in said and "`focusvit models`" in said


def test_a_damaged_record_is_named(model: Path) -> None:
    (model / box.ABOUT).write_text('{"made": "x"}')
    with pytest.raises(DataError, match=r"about\.json is damaged"):
        box.about("tiny-test")


def test_values_that_halves_cannot_hold_are_refused(model: Path, tmp_path: Path) -> None:
    from focusvit.runs.checkpoint import save_checkpoint

    record, weights = read_checkpoint("tiny-test")
    save_checkpoint(str(tmp_path / "large"), record, {**weights, "head.bias": weights["head.bias"] + 1e6})
    with pytest.raises(UsageError, match="up to 65504"):
        pack(str(tmp_path / "large"), "large", ABOUT)
    assert box.names() == ["tiny-test"]


def test_the_command_packs(model: Path, run: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["box", run, "other", "--made", "m", "--data", "a", "--data", "b", "--command", "c", "--score", "s=1 %"]
    assert main(argv, program="bench", verbs=BENCHES, options={}) == 0
    assert box.about("other") == box.About(
        made="m", data=("a", "b"), licence="Apache-2.0", commands=("c",), scores={"s": "1 %"}
    )


def test_the_models_of_this_version_are_whole_and_small() -> None:
    """What the package really holds."""
    for name in box.names():
        load_model(name)
        assert box.about(name).commands
    assert sum(path.stat().st_size for path in box.BOX.rglob("*") if path.suffix != ".py") < 12e6


def test_what_comes_with_the_package_loads_embeds_and_can_be_fine_tuned() -> None:
    assert "focusvit-tiny" in box.names() and sum(p.stat().st_size for p in box.BOX.rglob("*.safetensors")) < 12e6
    for name in box.names():
        record = load_checkpoint(box.checkpoint_place(name))
        start = finetune(record)
        assert start.init_from == record.uri and start.head_start == "probe" and not start.data.views
        model = load_model(name)[0]
        photo = torch.randint(0, 256, (1, 3, *model.config.image_size), dtype=torch.uint8)
        maps = torch.arange(56 * 56).view(1, 56, 56) // (56 * 14) * 4 + torch.arange(56) // 14
        rows = model.features(photo, maps.to(torch.uint8), 16)
        assert rows.shape == (1, model.config.width) and bool(rows.isfinite().all())
