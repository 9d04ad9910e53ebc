"""Checkpoints come back as they went, or say what does not fit; a half-written one does not exist."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from focusvit.model.model import FocusViT
from focusvit.recipes.small import RECIPES, debug, recipe
from focusvit.runs.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_model,
    load_weights,
    save_checkpoint,
)
from focusvit.runs.config_json import difference, from_json, to_json
from focusvit.runs.optimizer_state import fill_optimizer, optimizer_tensors
from focusvit.runs.run_dir import RunDir
from focusvit.train.config import TrainConfig
from focusvit.train.optim import OptimConfig, build_optimizer
from focusvit.weights.files import weights_hash
from pipeline.errors import DataError, UsageError


def write(uri: str, **changes) -> FocusViT:
    torch.manual_seed(0)
    config = debug()
    model = FocusViT(dataclasses.replace(config.model, num_classes=4))
    values = {
        "model": to_json(model.config), "config": to_json(config), "classes": ("a", "b", "c", "d"), "samples_seen": 64,
        **changes,
    }  # fmt: skip
    save_checkpoint(uri, Checkpoint(**values), model.state_dict())
    return model


def test_a_model_comes_back_bit_equal(tmp_path: Path) -> None:
    model = write(str(tmp_path / "ckpt"))
    again, record = load_model(str(tmp_path / "ckpt"))
    assert record.classes == ("a", "b", "c", "d") and record.samples_seen == 64 and record.num_classes == 4
    assert not again.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_run_directory_means_its_best_checkpoint(tmp_path: Path) -> None:
    run = RunDir(str(tmp_path))
    for samples, score in ((10, 0.2), (20, 0.5), (30, 0.4)):
        write(run.checkpoint_uri(samples), samples_seen=samples, metrics={"val/top1": score})
    write(run.checkpoint_uri(40), samples_seen=40)  # not scored
    write(run.checkpoint_uri(50), samples_seen=50)
    assert load_checkpoint(str(tmp_path)).samples_seen == 20
    (tmp_path / "checkpoints" / "000000000010" / "checkpoint.json").unlink()  # killed while it was removed or written
    (tmp_path / "checkpoints" / "000000000030" / ".model.safetensors.ab12.tmp").touch()
    run.prune()
    assert run.checkpoints() == [20, 40, 50]  # the best, and two to go on from
    kept = ["000000000020", "000000000040", "000000000050"]
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == kept


def test_equal_scores_are_told_apart_by_their_loss_and_then_by_age(tmp_path: Path) -> None:
    run, nan = RunDir(str(tmp_path)), float("nan")
    losses = {10: 0.4, 20: 0.2, 30: 0.2, 40: 0.3, 50: nan, 60: None}
    for samples, loss in losses.items():
        metrics = {"val/top1": 1.0} | ({} if loss is None else {"val/loss": loss})
        write(run.checkpoint_uri(samples), samples_seen=samples, metrics=metrics)
    write(run.checkpoint_uri(70), samples_seen=70, metrics={"val/top1": 0.9, "val/loss": 0.1})
    assert run.best_first() == [30, 20, 40, 10, 60, 70, 50]  # a loss that is no number: it diverged


def test_a_half_written_checkpoint_does_not_exist(tmp_path: Path) -> None:
    run = RunDir(str(tmp_path))
    write(run.checkpoint_uri(10), samples_seen=10)
    write(run.checkpoint_uri(20), samples_seen=20)
    (tmp_path / "checkpoints" / "000000000020" / "checkpoint.json").unlink()
    assert run.checkpoints() == [10] and run.latest() == 10


def test_no_checkpoint_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No checkpoint at"):
        load_checkpoint(str(tmp_path))


def test_a_checkpoint_of_another_shape_lists_what_does_not_fit(tmp_path: Path) -> None:
    other = to_json(dataclasses.replace(debug().model, num_classes=7, width=48))
    write(str(tmp_path), model=other)
    with pytest.raises(DataError, match=r"does not fit the model: .* there and .* here") as caught:
        load_model(str(tmp_path))
    assert "more" in str(caught.value)


def test_damage_is_a_data_error(tmp_path: Path) -> None:
    write(str(tmp_path))
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"model\.safetensors is not what was written"):
        load_model(str(tmp_path))
    (tmp_path / "checkpoint.json").write_text("{")
    with pytest.raises(DataError, match=r"checkpoint\.json is damaged: it is no JSON"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_survives_json(name: str) -> None:
    config = recipe(name)
    assert from_json(TrainConfig, to_json(config)) == config


def test_an_unknown_recipe_or_key_names_what_exists() -> None:
    with pytest.raises(UsageError, match="There is no recipe 'tiny'"):
        recipe("tiny")
    with pytest.raises(UsageError, match="unknown key 'speed'"):
        from_json(TrainConfig, {**to_json(debug()), "speed": 1})


def test_difference_uses_the_names_of_the_command_line() -> None:
    other = dataclasses.replace(debug(), seed=4, optim=dataclasses.replace(debug().optim, lr=0.5))
    assert difference(to_json(debug()), to_json(other)) == ["optim.lr: 0.001 -> 0.5", "seed: 0 -> 4"]


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_the_optimizer_comes_back_whole_and_where_its_weights_are(name: Any) -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = build_optimizer(model, OptimConfig(name=name))
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    saved = optimizer_tensors(optimizer, {id(p): n for n, p in model.named_parameters()})
    for device in (
        "cpu",
        "meta",
    ):  # meta stands for a GPU: the fused optimizers want all of their state beside the weights
        other = torch.nn.Linear(3, 2, device=device)
        again, names = build_optimizer(other, OptimConfig(name=name)), {id(p): n for n, p in other.named_parameters()}
        fill_optimizer(again, saved, names)
        found = optimizer_tensors(again, names)
        assert found.keys() == saved.keys()
        assert {value.device.type for value in found.values()} == {device}
        assert device == "meta" or all(torch.equal(found[key], saved[key]) for key in saved)


class _Scaled(torch.nn.Module):
    """A module with numbers that have no dimension: a float, a half and a counter."""

    def __init__(self, value: float, count: int) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(value))
        self.share = torch.nn.Parameter(torch.tensor(value, dtype=torch.bfloat16))
        self.register_buffer("count", torch.tensor(count))


def test_tensors_without_dimensions_come_back_and_have_their_own_hash(tmp_path: Path) -> None:
    model = _Scaled(0.5, 3)
    state = {"guard.mean_norm": torch.tensor(float("inf")), "optim.step.scale": torch.tensor(7.0)}
    save_checkpoint(str(tmp_path), Checkpoint(model={"num_classes": 2}), model.state_dict(), state)
    for name, expected in (("model.safetensors", model.state_dict()), ("state.safetensors", state)):
        again = load_weights(str(tmp_path), name)
        assert again.keys() == expected.keys()
        for key, value in expected.items():
            assert again[key].shape == () and again[key].dtype == value.dtype and torch.equal(again[key], value)
    hashes = {weights_hash(_Scaled(value, count)) for value in (0.5, -0.5, 0.0, -0.0) for count in (3, 4)}
    assert len(hashes) == 8 and weights_hash(_Scaled(0.5, 3)) in hashes


def test_the_hash_of_tensors_with_dimensions_stays_what_it_was() -> None:
    model = torch.nn.Linear(2, 3)
    digest = hashlib.sha256()
    for name in ("bias", "weight"):
        array = model.state_dict()[name].numpy()
        digest.update(f"{name}:torch.float32:{array.shape};".encode() + array.tobytes())
    assert weights_hash(model) == digest.hexdigest()
