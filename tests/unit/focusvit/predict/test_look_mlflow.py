"""The pictures of a training in MLflow: one for each budget and block, a folder for each purpose."""

from pathlib import Path

from cluster.train.reporting import _send_looks
from focusvit.predict.look import BUDGETS
from focusvit.predict.pictures import read_png
from focusvit.runs.tracker import Tracker
from pipeline.shards.dataset import open_dataset
from testkit.tiny_checkpoint import make_checkpoint
from testkit.tiny_shards import make_dataset


def test_a_training_sends_its_pictures(tmp_path: Path) -> None:
    data, checkpoint = make_dataset(tmp_path / "data"), make_checkpoint(tmp_path / "ckpt")
    with Tracker.open(f"sqlite:///{tmp_path}/mlflow.db", "looks", "one") as tracker:
        _send_looks(checkpoint, tracker, open_dataset(data))
    (artifacts,) = tmp_path.glob("mlartifacts/*/artifacts")
    found = {folder.name: sorted(path.name for path in folder.iterdir()) for folder in artifacts.iterdir()}
    assert found == {
        "token_budgets": [f"{budget:03d}.png" for budget in sorted(BUDGETS)],
        "attention": [f"{layer:03d}.png" for layer in range(4)],  # input, two blocks, rollout
    }
    for path in artifacts.glob("*/*.png"):
        assert read_png(str(path)).shape[1] > 4 * 200  # four samples side by side, not tiny
