"""A small data set in the place of one of the study."""

from dataclasses import replace
from pathlib import Path

import pytest

from testkit.tiny_shards import make_dataset
from tests.benchmarks.study import lighter, speed, study
from tests.benchmarks.study.matrix import SETS


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of 50 + 50 drawn images in the place of Tiny ImageNet-40."""
    (tmp_path / "sets" / "tiny-imagenet-40").mkdir(parents=True)
    make_dataset(tmp_path / "sets" / "tiny-imagenet-40")
    here = {"tiny-imagenet-40": replace(SETS["tiny-imagenet-40"], test_split="train", width=32)}
    for module in (study, lighter, speed):
        monkeypatch.setattr(module, "SETS", here)
    return tmp_path / "sets"
