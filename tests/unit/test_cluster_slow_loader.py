"""A loader that cannot keep up is named while training, once, with its share of the time and what to turn."""

import time
from collections.abc import Iterator

import pytest
import torch

from cluster.reporting import _Progress
from focusvit.batch import Batch
from focusvit.guard import Guard
from focusvit.meters import Meters
from focusvit.model import FocusViT
from focusvit.recipes import debug
from focusvit.train_step import StepSums


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
    bar.point({"samples": 4, "values": {"perf/data_wait_share": 0.1}})
    assert "waiting for data" not in capsys.readouterr().err
    for samples in (8, 12):
        bar.point({"samples": samples, "values": values})
    bar.close()
    said = capsys.readouterr().err
    assert said.count("waiting for data 62% of the time: add loader workers (--data.loader-workers) or CPUs") == 1
