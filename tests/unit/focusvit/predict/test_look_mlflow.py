"""The sliders of a training in MLflow: one picture a budget and a block, under the step that it stands for."""

import re
from pathlib import Path

from cluster.train.reporting import _send_looks
from focusvit.predict.look import BUDGETS
from focusvit.predict.pictures import read_png
from focusvit.runs.tracker import Tracker
from pipeline.shards.dataset import open_dataset
from testkit.tiny_checkpoint import make_checkpoint
from testkit.tiny_shards import make_dataset


def test_a_training_sends_its_sliders(tmp_path: Path) -> None:
    data, checkpoint = make_dataset(tmp_path / "data"), make_checkpoint(tmp_path / "ckpt")
    with Tracker.open(f"sqlite:///{tmp_path}/mlflow.db", "looks", "one") as tracker:
        _send_looks(checkpoint, tracker, open_dataset(data))
    found: dict[str, list[int]] = {}
    for path in tmp_path.glob("mlartifacts/**/look_*.png"):
        series, step = re.match(r"(look_\w+)[%+]step[%+](\d+)", path.name).groups()  # type: ignore[union-attr]
        found.setdefault(series, []).append(int(step))
        assert read_png(str(path)).shape[1] > 4 * 200  # four samples side by side, not tiny
    assert sorted(found["look_token_budget"]) == sorted(BUDGETS)
    assert sorted(found["look_attention"]) == [0, 1, 2, 3]  # input, two blocks, rollout
