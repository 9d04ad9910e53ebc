"""The logged model takes every form of input that MLflow knows and names its columns; MLflow has nothing to warn of."""

import warnings

import numpy as np
import pandas

from focusvit.predict.predictor import Predictor
from focusvit.runs.pyfunc import log_model
from focusvit.runs.tracker import Tracker
from testkit.image_sources import jpeg
from testkit.tiny_checkpoint import make_checkpoint


def test_the_logged_model_takes_paths_and_bytes_without_a_warning(tmp_path, monkeypatch, capfd):
    import mlflow

    monkeypatch.chdir(tmp_path)  # MLflow puts artifacts below the current folder
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    data = jpeg(0)
    path = tmp_path / "image.jpg"
    path.write_bytes(data)
    with Tracker.open(f"sqlite:///{tmp_path / 'mlflow.db'}", "e", "r") as tracker:
        capfd.readouterr()  # what making the database says
        with warnings.catch_warnings(record=True) as warned:
            logged = log_model(tracker, checkpoint)
            model = mlflow.pyfunc.load_model(logged.model_uri)
    assert not [str(one.message) for one in warned if "mlflow" in one.filename]
    assert "WARNING" not in capfd.readouterr().err

    code = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*/code/**/*.py")}
    assert any(name.endswith("code/focusvit/predict/predictor.py") for name in code)
    assert not [name for name in code if "tests" in name or "bench" in name]  # the laboratory stays at home

    wanted = Predictor(checkpoint).table([path])
    assert logged.signature.outputs.input_names() == list(wanted.columns)
    forms = [[str(path)], [data], np.array([str(path)]), pandas.DataFrame({"x": [data]}), pandas.Series([data]), data]
    for form in forms:
        pandas.testing.assert_frame_equal(model.predict(form), wanted)
    mixed = model.predict([data, str(path), "nowhere.jpg"])
    assert list(mixed["class"][:2]) == list(wanted["class"]) * 2 and mixed["error"][2]
