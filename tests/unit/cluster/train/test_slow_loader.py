"""A loader that cannot keep up is named while training, once, with its share of the time and what to turn."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from cluster.train.loader_watch import LoaderWatch
from cluster.train.reporting import _Progress
from focusvit.data.batch import Batch
from focusvit.model.model import FocusViT
from focusvit.recipes.small import debug
from focusvit.train.guard import Guard
from focusvit.train.meters import Meters
from focusvit.train.step import StepSums


def test_the_share_of_waiting_is_measured_and_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    device = torch.device("cpu")
    config = debug()
    meters = Meters(config, FocusViT(config.model), device)
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    meters._clear()
    zeros = torch.zeros(2, dtype=torch.int64)
    batch = Batch(images=torch.zeros(2, 3, 8, 8), class_ids=zeros, sample_ids=zeros, valid=zeros == 0)

    def slow() -> Iterator[Batch]:
        for _ in range(4):
            now[0] += 0.62  # reading and decoding
            yield batch

    for one in meters.waiting(slow()):
        now[0] += 0.38  # the step
        meters.add(StepSums(torch.ones(()), torch.ones(()), torch.ones(())), one)
    values = meters.point(0.1, 1.0, Guard(10.0, device))
    assert values["perf/data_wait_share"] == pytest.approx(0.62)

    bar = _Progress(total=100, done=0, run_id="r", quiet=False)
    for samples in (2, 30, 60, 90):  # at 2 images a second
        bar.point({"samples": samples, "values": {**values, "perf/img_per_s": 2.0}})
    bar.close()
    said = capsys.readouterr().err
    assert said.count("waiting for data 62% of the time: add loader workers (--data.loader-workers) or CPUs") == 1


def point(samples: int, share: float, img_per_s: float = 10.0) -> dict[str, Any]:
    return {"samples": samples, "values": {"perf/data_wait_share": share, "perf/img_per_s": img_per_s}}


def test_the_start_of_a_loader_is_not_a_slow_loader(capsys: pytest.CaptureFixture[str]) -> None:
    bar = _Progress(total=1280, done=0, run_id="r", quiet=False)
    for one in (point(32, 0.95), point(640, 0.12), point(1280, 0.09)):  # 3, 61 and 64 s
        bar.point(one)
    bar.close()
    assert "waiting for data" not in capsys.readouterr().err


def test_a_resumed_run_judges_neither_the_points_before_it_nor_its_own_start() -> None:
    watch = LoaderWatch(done=1000)
    again = [point(samples, 0.9) for samples in (400, 800, 1000)]
    assert [watch.share(one) for one in [*again, point(1400, 0.9)]] == [None] * 4
    assert watch.share(point(1800, 0.5)) == pytest.approx(0.5)


def test_short_windows_are_judged_together() -> None:
    """One slow window between quick ones says nothing; a loader that gets slow late is still found."""
    watch = LoaderWatch(done=0)
    swings = [watch.share(point(8 * n, 0.6 if n % 4 == 0 else 0.1)) for n in range(1, 200)]  # 0.8 s each
    assert swings == [None] * 199
    late = [watch.share(point(1592 + 8 * n, 0.6)) for n in range(1, 120)]
    assert [share for share in late if share][-1] == pytest.approx(0.6)
