"""Prediction sees what the evaluation loader sees; bad files are named and the rest goes on."""

import io
import json

import cv2
import numpy as np
import pytest
import torch

from focusvit.cli import main
from focusvit.data.loader import EvalLoader
from focusvit.predict import places, predict
from focusvit.predict.compatible import data_config
from focusvit.predict.predictor import Predictor
from pipeline.errors import UsageError
from pipeline.shards.dataset import open_dataset
from pipeline.sources.source import IMAGE_SUFFIXES
from testkit.odd_files import write_odd_files
from testkit.tiny_checkpoint import make_checkpoint
from testkit.tiny_shards import CLASSES, make_dataset


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """A data set, a checkpoint, and the data set's validation images as loose files."""
    root = tmp_path_factory.mktemp("predict")
    data, checkpoint = make_dataset(root / "data"), make_checkpoint(root / "ckpt")
    split = open_dataset(data).split("val")
    (root / "images").mkdir()
    for i in range(split.num_samples):
        (root / "images" / f"{i:03d}.jpg").write_bytes(split.read(i).image)
    return root, split, checkpoint


def test_predictions_equal_the_evaluation_loader_exactly(road):
    root, split, checkpoint = road
    predictor = Predictor.of(checkpoint)
    views = [predictor.view(path.read_bytes()) for path in sorted((root / "images").iterdir())]
    data = data_config(predictor.record, 0)
    (batch,) = EvalLoader(split, data, batch_size=100, tokens=9, with_maps=True)
    for number, view in enumerate(views):
        assert (view.image == batch.images[number].permute(1, 2, 0).numpy()).all()
        assert (view.map == batch.maps[number].numpy()).all()
    with torch.inference_mode():
        expected = torch.softmax(predictor.model(batch.images, batch.maps, 9), 1).numpy()
    found = np.stack([one.shares for one in predictor.predict(views)])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_one_bad_image_is_named_and_the_rest_goes_on(road, capsys, tmp_path):
    root, split, checkpoint = road
    bad = tmp_path / "bad one's.jpg"
    bad.write_bytes(b"not an image")
    (tmp_path / "empty.JPEG").write_bytes(b"")
    code = predict.main(
        ["--checkpoint", checkpoint, "--json", "--out", str(tmp_path / "out"), str(root / "images"), str(tmp_path)]
    )
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    good = [line for line in lines if "top" in line]
    assert code == 1 and len(good) == split.num_samples
    assert all(len(line["top"]) == 4 and line["top"][0]["class"] in CLASSES for line in good)
    assert sorted(line["image"].rsplit("/", 1)[-1] for line in lines if "error" in line) == [
        "bad one's.jpg",
        "empty.JPEG",
    ]
    assert f"bad image: {bad}" in err and "2 could not be read" in err
    overlays = sorted((tmp_path / "out").iterdir())
    assert len(overlays) == split.num_samples
    assert cv2.imread(str(overlays[0])).shape[1] >= 200


def test_the_table_shows_the_best_classes_and_a_plain_vit_needs_no_map(road, capsys, tmp_path):
    root, _, _ = road
    checkpoint = make_checkpoint(tmp_path / "plain", tokens=None)
    image = sorted((root / "images").iterdir())[0]
    assert predict.main(["--checkpoint", checkpoint, "--out", str(tmp_path / "out"), str(image), "--top", "2"]) == 0
    out = capsys.readouterr().out
    assert "plain patches" in out and out.count("%") == 2 and (tmp_path / "out" / "000.png").exists()


def test_wrong_places_are_usage_errors(road, tmp_path):
    _, _, checkpoint = road
    (tmp_path / "empty").mkdir()
    for images, word in (
        ([], "no image is named"),
        (["nowhere.jpg"], "does not exist"),
        ([str(tmp_path / "empty")], "holds no image"),
    ):
        with pytest.raises(UsageError, match=word):
            predict.main(["--checkpoint", checkpoint, *images])
    with pytest.raises(UsageError, match="No checkpoint"):
        predict.main(
            ["--checkpoint", str(tmp_path / "none"), str(tmp_path)] if (tmp_path / "a.png").write_bytes(b"x") else []
        )


def test_images_of_one_name_are_told_apart_and_other_files_counted(road, capsys, tmp_path):
    root, _, checkpoint = road
    image = (root / "images" / "000.jpg").read_bytes()
    for name in ("a/x.jpg", "b/x.jpg", "b/c/x.jpg", "b/x.PGM", "b/notes.txt", "b/x.heic"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(image)
    out = tmp_path / "out"
    assert predict.main(["--checkpoint", checkpoint, str(tmp_path / "in"), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    for name in ("a/x.jpg", "b/x.jpg", "b/c/x.jpg", "b/x.PGM"):
        assert f"\n{name} " in printed, name
    assert "left out: files of unknown ending: 2 (b/notes.txt, b/x.heic)" in printed
    pictures = sorted(str(path.relative_to(out)) for path in out.rglob("*.png"))
    assert pictures == ["a/x.png", "b/c/x.png", "b/x-2.png", "b/x.png"]


def test_names_of_places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/x.jpg", "b/x.jpg", "b/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = places.image_places(["a", "b/", "./a/x.jpg", str(tmp_path / "b/x.jpg")])
    assert [place.name for place in found] == ["a/x.jpg", "b/x.jpg", "b/x.png"]  # each once
    assert places.picture_names(found) == ["x.png", "x-2.png", "x-3.png"]
    assert [place.name for place in places.image_places(["b"])] == ["x.jpg", "x.png"]


def test_preprocess_and_predict_know_the_same_endings(tmp_path):
    for suffix in IMAGE_SUFFIXES:
        (tmp_path / f"a{suffix}").write_bytes(b"")
    assert len(places.image_places([str(tmp_path)])) == len(IMAGE_SUFFIXES) >= 10


def test_the_mlflow_table_keeps_a_row_for_a_bad_file(road, tmp_path):
    root, _, checkpoint = road
    image = sorted((root / "images").iterdir())[0]
    table = Predictor.of(checkpoint).table([image.read_bytes(), str(image), str(tmp_path / "none.jpg")])
    assert list(table.columns) == ["class", "share", "top5", "error"]
    assert table["error"][0] == "" and table["error"][1] == table["error"][2] != ""
    assert table["class"].isna().tolist() == [False, True, True]


@pytest.mark.timeout(60)
def test_what_is_no_regular_file_is_a_bad_image(road, tmp_path, capsys):
    root, _, checkpoint = road
    odd = write_odd_files(tmp_path / "odd")
    (tmp_path / "odd" / "again").symlink_to(tmp_path)
    (tmp_path / "odd" / "good.jpg").write_bytes((root / "images" / "000.jpg").read_bytes())
    assert predict.main(["--checkpoint", checkpoint, str(tmp_path / "odd"), "--json"]) == 1
    lines = {
        entry["image"].rpartition("/")[2]: entry for entry in map(json.loads, capsys.readouterr().out.splitlines())
    }
    assert lines.keys() == odd.keys() | {"good.jpg"} and "top" in lines["good.jpg"]
    assert all(said in lines[name]["error"] for name, said in odd.items())


class Screen(io.StringIO):
    """A terminal: both streams come to it."""

    def isatty(self):
        return True

    def lines(self):
        """What stands there in the end: a carriage return goes back, and what follows covers what was."""
        for line in self.getvalue().split("\n"):
            seen = ""
            for part in line.split("\r"):
                seen = part + seen[len(part) :]
            yield seen.rstrip()


@pytest.mark.parametrize("verb", ["predict", "look"])
def test_a_line_and_a_bar_never_share_a_row(road, tmp_path, monkeypatch, verb):
    root, _, checkpoint = road
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    screen = Screen()
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setattr("sys.stderr", screen)
    images = [str(tmp_path / "bad.jpg"), *map(str, sorted((root / "images").iterdir())[:3])]
    assert main([verb, "--checkpoint", checkpoint, "--out", str(tmp_path / "out"), *images]) == 1
    rows = [row for row in screen.lines() if row]
    assert any("/4 [" in row for row in rows)  # there is a bar
    assert not [row for row in rows if "/4 [" in row and (".jpg" in row or "could not be read" in row)]
    assert sum(row.startswith("bad image:") for row in rows) == 1
    if verb == "predict":
        assert sum("/images/00" in row and "% " in row for row in rows) == 3
