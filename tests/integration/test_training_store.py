"""Shards and run directory in an object store (an S3-speaking server on loopback): the same run as on a disk."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cluster.train.launch import LaunchConfig
from cluster.train.pretrain import launch_training, resolved
from focusvit.runs.run_dir import RunDir
from focusvit.train.optim import OptimConfig
from pipeline.errors import UsageError
from pipeline.io import storage
from testkit.s3_server import s3_bucket
from testkit.tiny_shards import make_dataset
from testkit.tiny_training import final_tensors, run_with_stops, small, values_of

pytestmark = pytest.mark.server
CONFIG = small(optim=OptimConfig(lr=1e-4, warmup_epochs=1))


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with s3_bucket(monkeypatch) as uri:
        yield uri


def shards(bucket: str, folder: Path) -> tuple[str, str]:
    """The same data set on the disk and in the store."""
    local, remote = make_dataset(folder / "data"), f"{bucket}/data"
    for path in Path(local).rglob("*"):
        if path.is_file():
            storage.put(storage.join(remote, *path.relative_to(local).parts), path.read_bytes())
    return local, remote


def check_same(run: str, reference: Path) -> None:
    assert values_of(run) == values_of(reference)
    left, right = final_tensors(run), final_tensors(reference)
    assert left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def launch(data: str, run: str, folder: Path, **changes: object) -> LaunchConfig:
    config = LaunchConfig(data=data, run_dir=run, tracking_uri=f"sqlite:///{folder}/mlflow.db", json=True)
    return resolved(dataclasses.replace(config, **changes))  # type: ignore[arg-type]


def test_a_run_in_a_store_stops_resumes_and_refuses_like_one_on_a_disk(bucket: str, tmp_path: Path) -> None:
    local, remote = shards(bucket, tmp_path)
    run = f"{bucket}/run"
    run_with_stops(CONFIG, local, str(tmp_path / "alone"), 0)
    run_with_stops(CONFIG, remote, run, 2)
    check_same(run, tmp_path / "alone")
    kept = RunDir(run).checkpoints()
    assert len(kept) <= 2 and kept[-1] == CONFIG.num_steps(50) * CONFIG.global_batch  # best and latest
    assert len(storage.list_names(f"{run}/checkpoints")) == len(kept)
    with pytest.raises(UsageError, match=r"s3://bucket/run holds a run with another config: seed: 0 -> 7"):
        launch_training(dataclasses.replace(CONFIG, seed=7), launch(remote, run, tmp_path, local=True))


@pytest.mark.ray
@pytest.mark.soak
def test_ray_train_runs_from_and_to_a_store(bucket: str, tmp_path: Path) -> None:
    local, remote = shards(bucket, tmp_path)
    run_with_stops(CONFIG, local, str(tmp_path / "alone"), 0)
    summary = launch_training(CONFIG, launch(remote, f"{bucket}/run", tmp_path, workers="2"))
    assert summary["points_not_sent"] == 0 and summary["checkpoint"].startswith(f"{bucket}/run/checkpoints/")
    ours, expected = values_of(f"{bucket}/run"), values_of(tmp_path / "alone")
    assert ours.keys() == expected.keys()
    last = max(ours)
    assert ours[last]["train/loss"] == pytest.approx(expected[last]["train/loss"], rel=5e-3)
