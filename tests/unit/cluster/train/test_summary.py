"""A summary never puts the score of one checkpoint beside the name of another."""

from pathlib import Path

import numpy as np
import pytest

from cluster.train import summary
from cluster.train.summary import description, summarise, summary_line
from focusvit.runs.metrics_log import MetricsLog
from focusvit.runs.run_dir import RunDir
from testkit.tiny_checkpoint import edit_checkpoint, make_checkpoint


def test_the_best_checkpoint_has_its_own_score_and_the_end_is_said_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summary, "read_confusion", lambda record: np.array([[8, 1], [3, 0]]))
    run, log = RunDir(str(tmp_path)), MetricsLog(RunDir(str(tmp_path)))
    for samples, score in ((41344, 0.7243), (82688, 0.7096)):
        place = make_checkpoint(tmp_path / "made" / str(samples))
        edit_checkpoint(place, samples_seen=samples, metrics={"val/top1": score, "val/loss": 1 - score})
        Path(run.checkpoint_uri(samples)).parent.mkdir(parents=True, exist_ok=True)
        Path(place).rename(run.checkpoint_uri(samples))
        log.append(samples, {"val/top1": score, "val/loss": 1 - score, "train/loss": 0.5})
    found = summarise(run, 3.0, 0)
    assert found["checkpoint"].endswith("/000000041344") and found["checkpoint_samples"] == 41344
    assert found["scores"]["val/top1"] == 0.7243 and found["last_scores"]["val/top1"] == 0.7096
    assert found["metrics"] == {"train/loss": 0.5} and found["samples_seen"] == 82688
    line = summary_line(found)
    assert (
        "000000041344: val/top1 0.7243, val/loss 0.2757 (chance 0.7500)" in line
        and "at the end val/top1 0.7096" in line
    )
    text = description(found, "/data")
    assert (
        "val/top1 **72.43%** (chance 75.00%)" in text
        and "after 41344 of 82688 samples of `/data`, 70.96% at the end" in text
    )
