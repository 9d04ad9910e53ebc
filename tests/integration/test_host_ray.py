"""A patched vision transformer of another library under Ray Train and in MLflow: killed, gone on with, served."""

import json
import site
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from cluster.train.pretrain import finetune_main
from focusvit.drop_in.host_model import HostModel
from focusvit.predict.predictor import Predictor
from focusvit.runs.checkpoint import load_model
from pipeline.shards.dataset import open_dataset
from testkit.hosts import save_host
from testkit.ray_workers import Killer
from testkit.tiny_shards import make_dataset
from testkit.tiny_training import values_of

# Alone with the packages: -I and -S leave this checkout out, so the model's own code answers.
_STRANGER = """
import sys
sys.path.append(sys.argv[1])
import mlflow
mlflow.set_tracking_uri(sys.argv[2])
model = mlflow.pyfunc.load_model(sys.argv[3])
print("TOLD", model.predict([open(sys.argv[4], "rb").read()]).to_json(double_precision=10))
"""


def finetune(folder: Path, run: str, capsys: pytest.CaptureFixture[str], *more: str) -> dict:
    """The summary of `focusvit finetune` on the data set and the host below `folder`."""
    words = [
        "--checkpoint",
        str(folder / "dino"),
        "--patch",
        "tokens=4",
        "depth=2",
        "merge=colour",
        "--data",
        str(folder / "data"),
    ]
    words += ["--run-dir", str(folder / run), "--tracking-uri", f"sqlite:///{folder}/{run}.db", "--epochs", "12"]
    words += ["--global-batch", "16", "--log-every-steps", "1", "--checkpoint-every-epochs", "1", "--json"]
    capsys.readouterr()
    assert finetune_main([*words, *more]) == 0
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


@pytest.mark.ray
@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_patched_host_is_killed_on_ray_goes_on_and_is_served_by_mlflow(tmp_path, capsys):
    make_dataset(tmp_path / "data", splits={"train": 32, "val": 8})
    save_host(tmp_path / "dino", "Dinov2Model")
    alone = finetune(tmp_path, "alone", capsys, "--local")
    killer = Killer(tmp_path / "run", times=1, after_points=4)
    killer.start()
    summary = finetune(tmp_path, "run", capsys, "--workers", "2")
    killer.over.set()
    assert len(killer.killed) == 1 and summary["samples_seen"] == alone["samples_seen"] == 12 * 32
    ours, wanted = values_of(tmp_path / "run"), values_of(tmp_path / "alone")
    assert ours.keys() == wanted.keys()
    for samples, values in wanted.items():
        for name, value in values.items():
            assert ours[samples][name] == pytest.approx(value, rel=5e-3, abs=5e-4), (samples, name)

    model, _ = load_model(str(tmp_path / "run"))
    assert isinstance(model, HostModel) and model.config.levels == ((2, 4),)
    store = f"sqlite:///{tmp_path}/run.db"
    client = mlflow.MlflowClient(tracking_uri=store)
    (logged,) = client.search_logged_models([one.experiment_id for one in client.search_experiments()])
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(open_dataset(str(tmp_path / "data")).split("val").read(0).image)
    packages = next(place for place in site.getsitepackages() if place.endswith("site-packages"))
    command = [sys.executable, "-I", "-S", "-c", _STRANGER, packages, store, f"models:/{logged.model_id}", str(photo)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.rpartition("TOLD ")[2])
    expected = Predictor.of(summary["checkpoint"]).table([photo.read_bytes()])
    assert told["error"] == {"0": ""} and told["class"]["0"] == expected["class"][0]
    assert told["share"]["0"] == pytest.approx(expected["share"][0], abs=1e-6)
