"""--score-on: a scoring that is slower than the training falls behind by one checkpoint and no more."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from cluster.train.checkpoint_scores import POINTS, _Scorer
from focusvit.runs.metrics_log import MetricsLog
from focusvit.runs.run_dir import RunDir
from testkit.tiny_checkpoint import make_checkpoint
from transfer.tasks.task import Task


def test_the_newest_checkpoint_waits_and_what_is_skipped_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, ready = RunDir(str(tmp_path / "run")), False
    monkeypatch.setattr(
        ray, "remote", lambda **options: lambda work: SimpleNamespace(remote=lambda spec: int(spec.checkpoint[-12:]))
    )
    monkeypatch.setattr(ray, "wait", lambda scores, timeout: (scores, []) if ready else ([], scores))
    monkeypatch.setattr(ray, "get", lambda samples: {"transfer/a/knn": samples / 100})
    scorer = _Scorer(run, Task(name="a", uri="nowhere"))

    def look(*new: int) -> list[str]:
        for samples in new:
            make_checkpoint(Path(run.checkpoint_uri(samples)), samples_seen=samples)
        scorer.look()
        return sorted(
            place.name.lstrip("0") for place in (tmp_path / "run" / "scored").iterdir() if any(place.iterdir())
        )

    assert look(10, 20) == ["10", "20"]  # one is scored, one waits
    assert look(30, 40) == ["10", "40"]
    said = capsys.readouterr().err
    assert "the checkpoint at 20 samples is skipped" in said and "the checkpoint at 30 samples is skipped" in said
    ready = True
    look()
    assert look() == []
    points: Any = MetricsLog(run, name=POINTS).points
    assert [(point["samples"], point["values"]) for point in points] == [
        (10, {"transfer/a/knn": 0.1}), (40, {"transfer/a/knn": 0.4}),
    ]  # fmt: skip
    assert "skipped" not in capsys.readouterr().err
