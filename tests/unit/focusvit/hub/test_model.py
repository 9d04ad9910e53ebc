"""One class for people: loaded from every place, asked about every kind of image, saved for others."""

import ast
import dataclasses
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import focusvit
from focusvit.cli import main
from focusvit.hub import model as hub
from focusvit.runs.checkpoint import load_model
from pipeline.errors import DataError, UsageError
from testkit.checkout import ROOT
from testkit.tiny_checkpoint import edit_checkpoint, make_checkpoint
from testkit.tiny_shards import CLASSES

RNG = np.random.default_rng(0)
PHOTO = np.repeat(np.repeat(RNG.integers(0, 256, (8, 10, 3), np.uint8), 6, 0), 6, 1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_checkpoint(tmp_path_factory.mktemp("run") / "checkpoint")


@pytest.fixture(scope="module")
def model(place: str) -> hub.FocusViT:
    return focusvit.load(place)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "photo.png"
    Image.fromarray(PHOTO).save(path)
    return path


def test_answers_are_those_of_the_verb(
    model: hub.FocusViT, place: str, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (answer,) = model.predict(photo)
    assert main(["predict", "--checkpoint", place, str(photo), "--json", "--top", "3"]) == 0
    said = json.loads(capsys.readouterr().out)["top"]
    assert [line["class"] for line in said] == list(answer.shares)[:3]
    assert [line["share"] for line in said] == pytest.approx(list(answer.shares.values())[:3], abs=1e-5)
    assert (answer.name, answer.share) == next(iter(answer.shares.items()))
    assert set(answer.shares) == set(CLASSES) and sum(answer.shares.values()) == pytest.approx(1)
    assert answer.image.shape == (32, 32, 3)
    assert answer.superpixels is not None and sorted(np.unique(answer.superpixels)) == list(range(9))


@pytest.mark.parametrize("kind", ["path", "text", "bytes", "folder", "PIL", "array", "tensor", "floats", "batch"])
def test_every_kind_of_image_gives_the_same_answer(model: hub.FocusViT, photo: Path, kind: str) -> None:
    tensor = torch.from_numpy(PHOTO).permute(2, 0, 1)
    image = {
        "path": photo, "text": str(photo), "bytes": photo.read_bytes(), "folder": photo.parent,
        "PIL": Image.fromarray(PHOTO), "array": PHOTO, "tensor": tensor, "floats": tensor / 255, "batch": tensor[None],
    }[kind]  # fmt: skip
    (want,) = model.predict(PHOTO)
    for found in model.predict(image) + (model.predict([image, photo]) if kind != "batch" else []):
        assert found.shares == pytest.approx(want.shares, abs=1e-5)
        np.testing.assert_array_equal(found.superpixels, want.superpixels)


def test_order_and_batches_change_nothing(model: hub.FocusViT) -> None:
    images = [np.roll(PHOTO, shift, 1) for shift in range(5)]
    whole = model.predict(images)
    for size in (1, 2):
        parts = model.predict(images, batch_size=size)
        assert [part.shares for part in parts] == [pytest.approx(one.shares, abs=1e-5) for one in whole]
    assert len({one.share for one in whole}) == 5


def test_features_go_through_the_head_to_the_answers(model: hub.FocusViT) -> None:
    features = model.embed([PHOTO, PHOTO[::-1]])
    assert features.shape == (2, 32) and not features.requires_grad and model.embed([]).shape == (0, 32)
    shares = torch.softmax(model.head(features), 1)[1]
    assert [model.predict(PHOTO[::-1])[0].shares[name] for name in CLASSES] == pytest.approx(shares.tolist(), abs=1e-5)


def test_training_mode_comes_back_and_other_budgets_work(model: hub.FocusViT) -> None:
    model.train()
    try:
        (answer,) = model.predict(PHOTO, tokens=4)
        assert model.training
    finally:
        model.eval()
    assert answer.superpixels is not None and answer.superpixels.max() == 3


def test_what_is_no_image_is_named(model: hub.FocusViT, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"missing\.jpg does not exist"):
        model.predict(tmp_path / "missing.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.jpg is not an image"):
        model.predict(tmp_path / "broken.jpg")
    with pytest.raises(DataError, match="image 1: an image must be"):
        model.predict([PHOTO, np.zeros((4, 4, 7), np.uint8)])


def test_a_model_without_classes_has_features_only(place: str, tmp_path: Path) -> None:
    weights = load_model(place)[0].state_dict()
    bare = make_checkpoint(tmp_path / "bare")
    edit_checkpoint(bare, classes=())
    model = focusvit.load(bare)
    with pytest.raises(UsageError, match="pretrained without labels"):
        model.predict(PHOTO)
    assert model.embed(PHOTO).shape == (1, 32) and weights.keys() == model.state_dict().keys()


def test_a_new_model_answers_and_is_saved(tmp_path: Path) -> None:
    config = focusvit.FocusViTConfig(image_px=32, patch_px=8, width=32, depth=2, heads=2, tokens=9, num_classes=3)
    new = focusvit.FocusViT(config)
    (answer,) = new.predict(PHOTO)
    assert set(answer.shares) == {"0", "1", "2"}
    new.save_pretrained(tmp_path / "saved")
    again = focusvit.FocusViT.from_pretrained(tmp_path / "saved")
    assert again.config == config and again.predict(PHOTO)[0].shares == pytest.approx(answer.shares, abs=1e-6)


def test_a_saved_folder_is_a_checkpoint_with_a_card_and_nothing_of_the_machine(place: str, tmp_path: Path) -> None:
    model = focusvit.load(place)
    model.record = dataclasses.replace(model.record, data_uri="/of-this-machine", run_id="abc")
    model.save_pretrained(tmp_path / "saved")
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert names >= {"checkpoint.json", "model.safetensors", "config.json", "README.md"}
    assert b"of-this-machine" not in b"".join(path.read_bytes() for path in (tmp_path / "saved").iterdir())
    card = (tmp_path / "saved" / "README.md").read_text()
    assert "library_name: focusvit" in card and "9 superpixels" in card and "val/top1: 0.5" in card
    loaded, record = load_model(str(tmp_path / "saved"))
    assert record.classes == CLASSES and record.metrics == {"val/top1": 0.5}
    for name, value in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=0, atol=0)


def test_scores_of_other_weights_are_not_saved(place: str, tmp_path: Path) -> None:
    model = focusvit.load(place)
    with torch.no_grad():
        model.head.bias += 1
    model.save_pretrained(tmp_path / "saved")
    assert load_model(str(tmp_path / "saved"))[1].metrics == {}
    assert "val/top1" not in (tmp_path / "saved" / "README.md").read_text()


def test_the_hub_gets_the_folder_and_gives_it(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client is the library's; what goes in and what comes back is ours."""
    import huggingface_hub

    sent = tmp_path / "sent"
    monkeypatch.setattr(huggingface_hub.hub_mixin.HfApi, "create_repo", lambda self, repo_id, **_: _Url(repo_id))
    monkeypatch.setattr(
        huggingface_hub.hub_mixin.HfApi, "upload_folder", lambda self, folder_path, **_: Path(folder_path).rename(sent)
    )
    model = focusvit.load(place)
    model.push_to_hub("someone/tiny")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(sent))
    (again,) = focusvit.FocusViT.from_pretrained("someone/tiny").predict(PHOTO)
    assert again.shares == pytest.approx(model.predict(PHOTO)[0].shares, abs=1e-6)


class _Url:
    def __init__(self, repo_id: str) -> None:
        self.repo_id = repo_id


def test_what_the_hub_does_not_give_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def refuse(name: str, **_: object) -> str:
        raise OSError("no such repository")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(UsageError, match=r"'someone/none' is no folder here, .* give it: no such repository"):
        focusvit.load("someone/none")
    with pytest.raises(UsageError, match=r"No checkpoint at .*/none:"):  # a bare name is none of the hub's
        focusvit.load("none")


def test_without_huggingface_hub_all_but_the_hub_works(place: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # every import of it fails
    monkeypatch.setattr(focusvit.hub, "model", hub)  # put back when the test is over
    monkeypatch.delitem(sys.modules, hub.__name__)
    bare = importlib.import_module(hub.__name__)
    model = bare.load(place)
    assert bare is not hub and len(model.predict(PHOTO)) == 1
    asks = (lambda: model.save_pretrained(tmp_path), lambda: model.push_to_hub("a/b"), lambda: bare.load("a/b"))
    for ask in asks:
        with pytest.raises(UsageError, match=r"pip install 'focusvit\[hub\]'"):
            ask()


def test_type_checkers_see_every_name() -> None:
    stub = ast.parse((ROOT / "focusvit" / "__init__.pyi").read_text())
    names = {name.asname for node in stub.body if isinstance(node, ast.ImportFrom) for name in node.names}
    assert names == set(focusvit.__all__)
    assert all((ROOT / package / "py.typed").exists() for package in ("pipeline", "focusvit", "transfer", "cluster"))


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_mypy_knows_the_types_outside(tmp_path: Path) -> None:
    """With the cache of `make lint`, else half a minute of CPU."""
    code = 'import focusvit\nreveal_type(focusvit.load("x").predict("y")[0].share)\nfocusvit.superpixels(1)\n'
    (tmp_path / "own.py").write_text(code)
    settings = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache")]
    command = [sys.executable, "-m", "mypy", *settings, "own.py"]
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment).stdout
    assert 'Revealed type is "float"' in said and 'Missing positional argument "tokens"' in said
