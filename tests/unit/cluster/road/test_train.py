"""`focusvit train FOLDER`: the whole road in small, again from where it stood, and odd folders in words."""

import base64
import json
import re
import sys
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from cluster.road import train, train_page
from focusvit.recipes.small import debug
from focusvit.runs.checkpoint import load_checkpoint
from focusvit.runs.config_json import to_json
from pipeline.errors import UsageError
from pipeline.shards.dataset import open_dataset
from pipeline.sources.embedded import draw_shape
from testkit.image_sources import jpeg, write_folder
from testkit.preprocessed import preprocessed
from testkit.tiny_checkpoint import edit_checkpoint, make_checkpoint


def photos(folder: Path, classes: tuple[str, ...] = ("disc", "square"), each: int = 12) -> Path:
    rng = np.random.default_rng(0)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(each):
            cv2.imwrite(str(folder / name / f"it's {i}.png"), draw_shape(rng, number, 48)[0][:, :, ::-1])
    return folder


def started(folder: Path) -> str:
    """An untrained checkpoint of the smallest recipe."""
    model = {name: value for name, value in vars(debug().model).items() if name != "num_classes"}
    return edit_checkpoint(make_checkpoint(folder, **model), config=to_json(debug()))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """(photos, out, what was printed) of one run."""
    import contextlib
    import io

    place = tmp_path_factory.mktemp("a folder")
    folder, told = photos(place / "my photos"), io.StringIO()
    start = started(place / "start")
    with contextlib.redirect_stdout(told):
        assert train.main([str(folder), "--out", str(place / "out"), "--checkpoint", start, "--epochs", "2"]) == 0
    return folder, place / "out", told.getvalue()


def test_it_ends_with_a_score_a_checkpoint_and_python_that_loads_it(done: tuple[Path, Path, str]) -> None:
    folder, out, told = done
    verbs = re.findall(r"^\$ focusvit (\w+)", told, re.M)
    assert verbs == ["preprocess", "preprocess", "finetune", "evaluate"]
    record = load_checkpoint(str(out / "run"))
    assert set(record.classes) == {"disc", "square"} and record.uri in told and str(out / "index.html") in told
    assert f"{record.metrics['val/top1']:.1%} of" in told and "always the most frequent class would give" in told
    assert "held out by a hash of their names" in told and "because" in told

    code = told[told.index("import focusvit") :]
    values: dict = {"photo": str(next(folder.glob("disc/*.png")))}
    exec(code.replace('"photo.jpg"', "photo"), values)
    assert values["answer"].name in record.classes and values["answer"].superpixels is not None


def test_the_page_is_one_file_with_all_pictures_in_it(done: tuple[Path, Path, str]) -> None:
    text = (done[1] / "index.html").read_text()
    pictures = re.findall(r'src="data:image/(?:png|jpeg);base64,([^"]+)"', text)
    sides = [Image.open(BytesIO(base64.b64decode(data))).size for data in pictures]
    assert len(sides) == 3 and all(min(size) > 100 for size in sides)
    assert "http" not in re.sub(r"data:image[^\"]+", "", text) and "<script" not in text
    assert "my photos" in text and "prefers-color-scheme: dark" in text


def test_the_same_command_goes_on_and_another_folder_is_refused(
    done: tuple[Path, Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out, _ = done
    plan = (out / "plan.json").read_bytes()
    start = json.loads(plan)["start"]
    assert train.main([str(folder), "--out", str(out), "--checkpoint", start, "--minutes", "99"]) == 0
    told = capsys.readouterr()
    assert (out / "plan.json").read_bytes() == plan and "nothing is left to do" in told.err
    assert "that of the first start" in told.out and "for other settings name another --out" in told.out
    for damage in (b"{", b"[]", plan.replace(b'"why"', b'"because"')):
        (out / "plan.json").write_bytes(damage)
        with pytest.raises(UsageError, match=r"plan\.json is damaged"):
            train.main([str(folder), "--out", str(out), "--checkpoint", start])
    (out / "plan.json").write_bytes(plan)
    other = photos(tmp_path / "other", each=9)
    for changed in (other, folder):
        cv2.imwrite(str(changed / "disc" / "new.png"), np.zeros((48, 48, 3), np.uint8))
        with pytest.raises((UsageError, SystemExit)):
            train.main([str(changed), "--out", str(out), "--checkpoint", start])
        said = capsys.readouterr().err
        assert f"name another --out or remove {out}" in said and "goes on from there" not in said
    (folder / "disc" / "new.png").unlink()


def test_the_page_says_what_its_score_leaves_out(tmp_path: Path) -> None:
    images = {"a": {"1.jpg": jpeg(1), "2.jpg": jpeg(2)}, "b": {"3.jpg": jpeg(3)}, "c": {"4.jpg": jpeg(4)}}
    preprocessed(write_folder(tmp_path / "train", images), tmp_path / "out", "train")
    left = {"a": {"5.jpg": jpeg(5), "6.jpg": b"torn"}, "b": {"7.jpg": jpeg(3)}, "c": {}}
    preprocessed(write_folder(tmp_path / "val", left), tmp_path / "out", "val", on_error="skip")
    data, counts = open_dataset(str(tmp_path / "out")), np.array([[0, 1, 0], [0, 1, 0], [0, 0, 0]])
    notes = train_page._caveats(data, counts)
    assert notes[0] == "1 of 3 classes have no validation image: c"
    assert notes[1].startswith("1 images of split 'val' were left out: ") and notes[1].endswith("errors-val.json")
    assert "have the bytes of images in split 'train'" in notes[2] and len(notes) == 3
    assert train_page._by_class(data.classes, counts) == [("a", 1, "0%"), ("b", 1, "100%"), ("c", 0, "-")]


@pytest.mark.parametrize(
    ("classes", "said"), [(("disc",), "at least 2: put the images of each class into a folder"), ((), "does not exist")]
)
def test_a_folder_that_cannot_be_learned_from_is_refused(tmp_path: Path, classes: tuple[str, ...], said: str) -> None:
    folder = photos(tmp_path / "photos", classes)
    start = make_checkpoint(tmp_path / "start")
    with pytest.raises(UsageError, match=said):
        train.main([str(folder), "--out", str(tmp_path / "out"), "--checkpoint", start, "--epochs", "1"])
    assert not (tmp_path / "out").exists()  # before any work


def test_an_unreadable_image_stops_it_or_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = photos(tmp_path / "photos", each=5), str(tmp_path / "out")
    (folder / "disc" / "torn.jpg").write_bytes(b"no image")
    with pytest.raises(SystemExit):
        train.main([str(folder), "--out", out])
    assert "leave them out with --on-error skip" in capsys.readouterr().err
    monkeypatch.setattr(train, "_planned", lambda *given: sys.exit(7))  # what follows is the other tests'
    with pytest.raises(SystemExit, match="7"):
        train.main([str(folder), "--out", out, "--on-error", "skip"])
    splits = open_dataset(f"{out}/shards").splits
    assert sum(split.num_samples for split in splits.values()) == 10
    assert sum(split.num_skipped for split in splits.values()) == 1


def test_a_validation_split_of_the_folders_own_is_used(tmp_path: Path) -> None:
    photos(tmp_path / "set" / "train", each=3)
    photos(tmp_path / "set" / "val", each=2)
    assert train._val_share(str(tmp_path / "set"), str(tmp_path / "out"), 0.2) is None
    assert train._val_share(str(tmp_path / "set" / "train"), str(tmp_path / "out"), 0.3) == 0.3
