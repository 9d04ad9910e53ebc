"""Checkpoints: when asked for, beside the training, and all that a resume and a reader need."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import focusvit.train.loop
from focusvit.data.config import DataConfig
from focusvit.runs.checkpoint import load_checkpoint, load_weights
from focusvit.runs.config_json import from_json
from focusvit.runs.run_dir import RunDir
from focusvit.train.config import TrainConfig
from focusvit.train.loop import train
from pipeline.io import storage
from pipeline.shards.dataset import open_dataset
from testkit.tiny_shards import make_dataset
from testkit.tiny_training import final_tensors, small, values_of


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_dataset(tmp_path_factory.mktemp("data"))


def test_a_stop_file_makes_a_checkpoint_and_the_rest_is_the_same(uri: str, tmp_path: Path) -> None:
    config: TrainConfig = small(epochs=6, eval_every_epochs=6, checkpoint_every_epochs=6, data=DataConfig(image_px=32))
    train(config, data_uri=uri, run_dir=str(tmp_path / "whole"))
    run = RunDir(str(tmp_path / "parts"))
    run.ask_to_stop()
    assert train(config, data_uri=uri, run_dir=run.uri)["samples_seen"] == 17 == run.latest()
    run.forget_to_stop()
    train(config, data_uri=uri, run_dir=run.uri)
    left, right = final_tensors(tmp_path / "whole"), final_tensors(tmp_path / "parts")
    assert left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
    assert values_of(tmp_path / "whole") == values_of(tmp_path / "parts")


def test_training_goes_on_while_a_checkpoint_is_written(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first write waits for two more steps. Were the loop to wait for the write, neither would ever go on."""
    steps, two_more = [0], threading.Event()
    original_step, original_put = focusvit.train.loop.train_step, storage.put

    def step(*arguments: Any, **options: Any) -> Any:
        steps[0] += 1
        if steps[0] == 8:  # the first checkpoint comes after the sixth step, the next one after the ninth
            two_more.set()
        return original_step(*arguments, **options)

    def put(place: str, data: bytes) -> None:
        if place.endswith("model.safetensors"):
            assert two_more.wait(60)
        original_put(place, data)

    monkeypatch.setattr(focusvit.train.loop, "train_step", step)
    monkeypatch.setattr(storage, "put", put)
    config = small(epochs=3, eval_every_epochs=3, checkpoint_every_epochs=1.9)
    train(config, data_uri=uri, run_dir=str(tmp_path))
    assert RunDir(str(tmp_path)).latest() == config.num_steps(50) * 17


def test_a_checkpoint_holds_what_a_resume_and_a_reader_need(uri: str, tmp_path: Path) -> None:
    run = RunDir(str(tmp_path))
    run.set_info({"run_id": "abc"})
    config = small(ema_decay=0.9)
    train(config, data_uri=uri, run_dir=run.uri)
    record = load_checkpoint(run.checkpoint_uri(run.latest() or 0))
    assert from_json(TrainConfig, record.config) == focusvit.train.loop.for_dataset(config, open_dataset(uri))
    assert record.samples_seen == config.num_steps(50) * 17 and record.run_id == "abc" and record.has_ema
    assert record.data_identity == "tiny-train-50-40" and record.classes and record.superpixels
    names = set(final_tensors(tmp_path))
    for weight in load_weights(record.uri):  # average, raw weight and both moments of each
        assert {weight, f"raw.{weight}"} <= names
    assert {"optim.exp_avg.head.weight", "optim.exp_avg_sq.head.weight", "guard.mean_norm"} <= names
