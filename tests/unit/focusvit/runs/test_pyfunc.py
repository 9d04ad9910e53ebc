"""The logged model takes images in every form that MLflow knows and opens nothing by name; it carries its scores."""

import base64
import os
import warnings

import numpy as np
import pandas
import pytest

from focusvit.predict.predictor import Predictor
from focusvit.runs.pyfunc import Scored, log_model
from focusvit.runs.tracker import Tracker
from testkit.image_sources import jpeg
from testkit.tiny_checkpoint import make_checkpoint


def test_the_logged_model_takes_bytes_and_base64_without_a_warning(tmp_path, monkeypatch, capfd):
    import mlflow

    monkeypatch.chdir(tmp_path)  # MLflow puts artifacts below the current folder
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    data = jpeg(0)
    text = base64.b64encode(data).decode()
    path = tmp_path / "image.jpg"
    path.write_bytes(data)
    # step 0: the start of a fine-tuning, from where MLflow would copy the points by itself
    scored = Scored([("val/top1", 0, 0.5, 1000), ("val/loss", 0, 2.0, 1000)], "photos val", "f" * 64)
    with Tracker.open(f"sqlite:///{tmp_path / 'mlflow.db'}", "e", "tiny: a/b 10%") as tracker:
        tracker.dataset("photos val", "f" * 64, "/data", context="eval")
        tracker.metrics(scored.points)
        capfd.readouterr()  # what making the database says
        with warnings.catch_warnings(record=True) as warned:
            logged = log_model(tracker, checkpoint, [scored])
            model = mlflow.pyfunc.load_model(logged.model_uri)
        history = tracker.client.get_metric_history(tracker.run_id, "val/top1")
        found = tracker.client.get_logged_model(logged.model_id)
    assert not [str(one.message) for one in warned if "mlflow" in one.filename]
    assert "WARNING" not in capfd.readouterr().err
    assert found.name == "tiny a b 10"
    shown = {(one.key, one.value, one.step, one.dataset_name, one.dataset_digest) for one in found.metrics}
    assert shown == {(name, value, 0, "photos val", "f" * 36) for name, _, value, _ in scored.points}
    assert len(history) == 1  # the run's curve has no second point

    code = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*/code/**/*.py")}
    assert any(name.endswith("code/focusvit/predict/predictor.py") for name in code)
    weights = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.safetensors")]
    assert not any("/code/" in name for name in weights), "weights of the box travel with every model"
    assert not [name for name in code if "tests" in name or "bench" in name]  # the laboratory stays at home

    wanted = Predictor.of(checkpoint).table([data])
    assert wanted["error"][0] == "" and 0 < wanted["share"][0] <= 1
    assert logged.signature.outputs.input_names() == list(wanted.columns)
    forms = [[text], [data], np.array([text]), pandas.DataFrame({"x": [data]}), pandas.Series([data]), data]
    for form in forms:
        pandas.testing.assert_frame_equal(model.predict(form), wanted)
    mixed = model.predict([data, str(path), "image.jpg", text])
    assert list(mixed["class"][[0, 3]]) == list(wanted["class"]) * 2
    assert all("opens no files" in error for error in mixed["error"][[1, 2]])
    # Who loads the model may name a folder.
    reading = mlflow.pyfunc.load_model(logged.model_uri, model_config={"images_folder": str(tmp_path)})
    pandas.testing.assert_frame_equal(reading.predict([str(path)]), wanted)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    return Predictor.of(make_checkpoint(tmp_path_factory.mktemp("model") / "checkpoint"))


SECRET = "root:x:0:0"
ODD = [
    "/etc/passwd", "/etc/shadow", "/etc/no-file", "/nowhere", "ftp://x", "http://127.0.0.1:1/x", "file:///etc/passwd",
    "a\0b", "http://[::bad", "http://169.254.169.254/latest", "memory://x", "s3://bucket/x", "../outside.jpg", "", "~",
    "x" * 5000, "data:image/png;base64,", "é", "link.jpg",
    "deep/../../outside.jpg", "loop", "inner", "pipe", "notes.txt",
    None, 3, 2.5, float("nan"), ["a"], {"b64": "x"}, b"", b"no image", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\0" * 100,
]  # fmt: skip


@pytest.mark.parametrize("with_folder", [False, True])
def test_nothing_odd_is_opened_told_or_stops_a_batch(predictor, tmp_path, with_folder, monkeypatch):
    """Each entry has its row, in words that tell neither what stands in a file nor whether there is one."""
    allowed = tmp_path / "allowed"
    (allowed / "inner").mkdir(parents=True)
    (tmp_path / "outside.jpg").write_bytes(jpeg(0))
    (allowed / "link.jpg").symlink_to(tmp_path / "outside.jpg")
    (allowed / "loop").symlink_to("loop")
    os.mkfifo(allowed / "pipe")
    (allowed / "notes.txt").write_text(SECRET)
    (allowed / "good.jpg").write_bytes(jpeg(0))
    monkeypatch.chdir(allowed)
    monkeypatch.setattr("fsspec.filesystem", lambda *given, **named: pytest.fail("an address was opened"))
    monkeypatch.setattr("socket.socket.connect", lambda *given: pytest.fail("a connection was made"))
    good = jpeg(0)
    entries = pandas.Series([good, *ODD, good], dtype=object).to_frame()
    rows = predictor.table(entries, str(allowed) if with_folder else "")
    assert len(rows) == len(ODD) + 2
    assert [not error for error in rows["error"]] == [True, *[False] * len(ODD), True]
    assert rows["class"].iloc[0] == rows["class"].iloc[-1]
    for entry, error in zip(ODD, rows["error"][1:-1]):
        assert SECRET not in error and "\n" not in error and len(error) <= 300, entry
        assert not (isinstance(entry, str) and len(entry) > 3 and entry in error), entry
    told = dict(zip(map(str, ODD), rows["error"][1:-1]))
    assert told["/etc/passwd"] == told["/etc/no-file"] == told["../outside.jpg"] == told["ftp://x"] == told["a\0b"]


def test_a_folder_gives_its_own_files_by_any_of_their_names(predictor, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "good.jpg").write_bytes(jpeg(0))
    (tmp_path / "here.jpg").symlink_to("deep/good.jpg")  # a link that stays inside
    names = ["deep/good.jpg", str(tmp_path / "deep" / "good.jpg"), "here.jpg", "deep/../here.jpg"]
    rows = predictor.table([*names, jpeg(0)], str(tmp_path))
    assert list(rows["error"]) == [""] * 5 and rows["share"].nunique() == 1


def test_a_huge_entry_is_refused_before_it_is_decoded(predictor, monkeypatch):
    monkeypatch.setattr("focusvit.predict.predictor.MAX_BYTES", 1000)
    rows = predictor.table(["A" * 2001, b"A" * 1001, "A" * 1600])
    assert [error.split(",")[0] for error in rows["error"]] == [
        "is text of 2001 characters", "has 1001 bytes", "has 1200 bytes",
    ]  # fmt: skip
