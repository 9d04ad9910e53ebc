"""The registered model predicts in a process that has the packages but not this checkout: its code travels with it."""

import json
import site
import subprocess
import sys

import pytest

from focusvit.cli import main
from focusvit.predict.predictor import Predictor
from pipeline.shards.dataset import open_dataset
from testkit.tiny_checkpoint import make_checkpoint
from testkit.tiny_shards import make_dataset

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

# -I ignores PYTHONPATH and the current folder; -S reads no .pth file, so the editable install of this checkout is off.
STRANGER = """
import importlib.util, json, pathlib, sys
sys.path.append(sys.argv[1])
assert importlib.util.find_spec("focusvit") is None and importlib.util.find_spec("pipeline") is None
import mlflow
mlflow.set_tracking_uri(sys.argv[2])
model = mlflow.pyfunc.load_model(sys.argv[3], model_config={"images_folder": str(pathlib.Path(sys.argv[4]).parent)})
table = model.predict(sys.argv[4:])
import focusvit, pipeline
places = [str(pathlib.Path(m.__file__).resolve()) for m in (focusvit, pipeline)]
print(json.dumps({"rows": table.to_dict("records"), "places": places, "loaded": sorted(sys.modules)}))
"""


def test_the_best_model_predicts_without_the_checkout(tmp_path, capsys):
    import mlflow

    data = make_dataset(tmp_path / "data", splits={"train": 40, "val": 16})
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"

    def suite(seed: int, *more: str) -> str:
        checkpoint = make_checkpoint(tmp_path / f"ckpt{seed}", seed=seed)
        argv = ["transfer", "--checkpoint", checkpoint, "--task", f"tiny={data}", "--no-baselines", *more]
        argv += ["--out", str(tmp_path / f"out{seed}"), "--tracking-uri", store, "--register", "tiny-model"]
        assert main(argv) == 0
        return capsys.readouterr().out

    assert "tiny-model version 1" in suite(0)
    suite(1)
    client = mlflow.MlflowClient(tracking_uri=store)
    versions = {one.version: float(one.tags["score"]) for one in client.search_model_versions("name='tiny-model'")}
    best = client.get_model_version_by_alias("tiny-model", "best")
    assert len(versions) == 2 and versions[best.version] == max(versions.values())
    assert best.tags["score_of"] == "mean logistic of tiny top1"

    images = []
    split = open_dataset(data).split("val")
    for number in range(3):
        images.append(tmp_path / f"image{number}.jpg")
        images[-1].write_bytes(split.read(number).image)
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    packages = next(place for place in site.getsitepackages() if place.endswith("site-packages"))
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", STRANGER, packages, store, "models:/tiny-model@best",
         *map(str, images), str(tmp_path / "broken.jpg")],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    # The code is the model's own copy: below its artifacts, not this checkout and not an installed package.
    assert all("/code/" in place and str(tmp_path) in place for place in found["places"]), found["places"]
    assert not {"ray", "cluster", "transfer"} & set(found["loaded"])
    mine = Predictor.of(best.tags["checkpoint"]).table([image.read_bytes() for image in images])
    assert [row["class"] for row in found["rows"][:3]] == list(mine["class"])
    assert [row["share"] for row in found["rows"][:3]] == pytest.approx(list(mine["share"]), abs=1e-5)
    broken = found["rows"][3]  # one bad file costs its own row only
    assert "is not an image" in broken["error"] and not isinstance(broken["class"], str)
