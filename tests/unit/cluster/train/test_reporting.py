"""What a training shows while it runs: among others a loader that cannot keep up, by its share of the time."""

import time
from collections.abc import Iterator

import pytest
import torch
from tqdm import tqdm

from cluster.train.reporting import _Progress
from focusvit.data.batch import Batch
from focusvit.model.model import FocusViT
from focusvit.recipes.small import debug
from focusvit.train.guard import Guard
from focusvit.train.meters import Meters
from focusvit.train.step import StepSums


def test_the_share_of_waiting_is_measured_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cpu")
    config = debug()
    meters = Meters(config, FocusViT(config.model), device)
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    meters._clear()
    zeros = torch.zeros(2, dtype=torch.int64)
    batch = Batch(images=torch.zeros(2, 3, 8, 8), class_ids=zeros, sample_ids=zeros)

    def slow() -> Iterator[Batch]:
        for _ in range(4):
            now[0] += 0.62  # reading and decoding
            yield batch

    for one in meters.waiting(slow()):
        now[0] += 0.38  # the step
        meters.add(StepSums(torch.ones(()), torch.ones(()), torch.ones(())), one)
    values = meters.point(0.1, 1.0, Guard(10.0, device))
    assert values["perf/data_wait_share"] == pytest.approx(0.62)

    monkeypatch.setattr(tqdm, "set_postfix", lambda bar, shown, **_: postfixes.append(dict(shown)))
    postfixes: list[dict[str, str]] = []
    bar = _Progress(total=100, done=0, run_id="r", quiet=True)
    bar.point({"samples": 2, "values": {**values, "perf/img_per_s": 2.0, "train/loss": 1.5}})
    bar.point({"samples": 4, "values": {"val/top1": 0.25}})
    bar.close()
    assert postfixes[-1] == {"loss": "1.500", "img/s": "2", "data wait": "62%", "val_top1": "0.250"}
