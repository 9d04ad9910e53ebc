"""The head that fine-tuning starts from: scikit-learn's minimum, and a training that begins at the probe's accuracy."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from focusvit.model.config import FocusViTConfig
from focusvit.recipes.small import debug, finetune
from focusvit.runs.checkpoint import load_checkpoint, load_weights
from focusvit.runs.run_dir import RunDir
from focusvit.train import loop
from focusvit.train.config import TrainConfig
from focusvit.train.loop import train
from focusvit.train.optim import OptimConfig
from focusvit.weights import head
from testkit.gloo_ranks import run_ranks
from testkit.tiny_shards import make_dataset
from testkit.tiny_training import Stop, final_tensors, run_with_stops, small, values_of


def clouds(count: int = 90) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    truth = torch.arange(count) % 3
    centres = torch.tensor([[0.0, 0.0, 5.0, 1.0], [1.5, 0.0, 5.0, 1.0], [0.0, 30.0, 5.0, 1.0]])
    noise = torch.randn(count, 4, generator=draw) * torch.tensor([1.0, 20.0, 0.1, 0.0])  # one feature is constant
    return centres[truth] + noise, truth


def test_the_head_is_the_minimum_that_scikit_learn_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    values, truth = clouds()
    monkeypatch.setattr(head, "STRENGTHS", (1e-2,))
    weight, bias = head.probe_head(values, truth, 3)
    scaled = (values - values.mean(0)) / values.std(0, correction=0).clamp_min(1e-6)
    reference = LogisticRegression(C=1 / (1e-2 * len(values)), tol=1e-10, max_iter=10000).fit(scaled.double(), truth)
    ours = (values @ weight.T + bias).softmax(1)
    assert np.allclose(ours, reference.predict_proba(scaled.double()), atol=1e-4)


def test_a_class_without_samples_and_one_sample_a_class_give_finite_heads() -> None:
    values, truth = 50 * torch.eye(4)[:3], torch.arange(3)
    weight, bias = head.probe_head(values, truth, 5)
    assert weight.shape == (5, 4) and bool(weight.isfinite().all() and bias.isfinite().all())
    assert (values @ weight.T + bias).argmax(1).tolist() == truth.tolist()


def test_the_decay_is_chosen_by_the_loss_of_what_was_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six samples a class in 60 dimensions: without decay the answers are as often right, and far too sure."""
    draw = torch.Generator().manual_seed(1)
    truth = torch.arange(30) % 5
    values = torch.randn(5, 60, generator=draw)[truth] + 2 * torch.randn(30, 60, generator=draw)
    fresh = torch.randn(5, 60, generator=torch.Generator().manual_seed(1))[torch.arange(500) % 5]
    fresh = fresh + 2 * torch.randn(500, 60, generator=draw)

    def loss() -> float:
        weight, bias = head.probe_head(values, truth, 5)
        return float(torch.nn.functional.cross_entropy(fresh @ weight.T + bias, torch.arange(500) % 5))

    chosen = loss()
    alone = []
    for decay in head.STRENGTHS:
        monkeypatch.setattr(head, "STRENGTHS", (decay,))
        alone.append(loss())
    assert chosen <= sorted(alone)[1] and max(alone) > 2 * chosen


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """(data set, run) of a short training."""
    uri = make_dataset(tmp_path_factory.mktemp("data"), splits={"train": 48, "val": 24})
    run = str(tmp_path_factory.mktemp("run"))
    optim = OptimConfig(lr=3e-3, warmup_epochs=1)
    train(small(epochs=3, optim=optim, eval_every_epochs=3, checkpoint_every_epochs=3), data_uri=uri, run_dir=run)
    return uri, run


def frozen(run: str, **changes: object) -> TrainConfig:
    """A fine-tuning whose weights hardly move, scored on what it learns from: its score is that of its start."""
    optim, config = OptimConfig(lr=1e-12, warmup_epochs=0.0, weight_decay=0.0), finetune(load_checkpoint(run))
    data = dataclasses.replace(config.data, eval_split="train")
    return dataclasses.replace(config, epochs=1, global_batch=24, optim=optim, data=data, **changes)


def test_fine_tuning_starts_at_the_probes_accuracy_and_resumes_there(
    pretrained: tuple[str, str], tmp_path: Path
) -> None:
    uri, run = pretrained
    from_probe = train(frozen(run), data_uri=uri, run_dir=str(tmp_path / "probe"))
    by_chance = train(frozen(run, head_start="random"), data_uri=uri, run_dir=str(tmp_path / "random"))
    assert from_probe["val/top1"] >= by_chance["val/top1"] + 0.2
    assert from_probe["val/loss"] < by_chance["val/loss"]
    kept = load_weights(RunDir(str(tmp_path / "probe")).checkpoint_uri(48))
    assert kept["head.weight"].abs().max() > 0.05


def test_a_fine_tuning_that_makes_it_worse_has_its_start_as_the_best_checkpoint(
    pretrained: tuple[str, str], tmp_path: Path
) -> None:
    uri, run = pretrained
    start = frozen(run)
    held = train(start, data_uri=uri, run_dir=str(tmp_path / "held"))
    wild = dataclasses.replace(start, optim=OptimConfig(lr=0.3, warmup_epochs=0.0))
    last = train(wild, data_uri=uri, run_dir=str(tmp_path / "wild"))
    assert last["val/top1"] < held["val/top1"], "the rate was not wild enough to test anything"
    kept = load_checkpoint(str(tmp_path / "wild"))
    assert kept.samples_seen == 0 and kept.metrics["val/top1"] == held["val/top1"]
    points = values_of(tmp_path / "wild")
    assert points[0]["val/top1"] == held["val/top1"] and points[48]["val/top1"] == last["val/top1"]


def test_a_kill_right_after_the_start_was_scored_changes_nothing(pretrained: tuple[str, str], tmp_path: Path) -> None:
    uri, run = pretrained
    config = dataclasses.replace(finetune(load_checkpoint(run)), epochs=2, global_batch=24, log_every_steps=1)
    run_with_stops(config, uri, str(tmp_path / "whole"), stops=0)
    for stops, place in enumerate(("killed", "twice"), 1):
        run_with_stops(config, uri, str(tmp_path / place), stops=stops)
        assert values_of(tmp_path / place) == values_of(tmp_path / "whole")
        whole, killed = final_tensors(tmp_path / "whole"), final_tensors(tmp_path / place)
        assert all(torch.equal(whole[name], killed[name]) for name in whole)


def test_a_start_that_was_saved_and_not_scored_is_scored_by_the_next_start(
    pretrained: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, run = pretrained
    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(loop, "_score", _stopped)
        train(frozen(run), data_uri=uri, run_dir=str(tmp_path / "run"))
    assert load_checkpoint(str(tmp_path / "run")).metrics == {}
    train(frozen(run), data_uri=uri, run_dir=str(tmp_path / "run"))
    points = values_of(tmp_path / "run")
    assert points[0]["val/top1"] == points[48]["val/top1"] > 0


def _stopped(session: object) -> None:
    raise Stop


def _ranks(rank: int, world: int, uri: str, run: str, out: str) -> None:
    train(frozen(run), data_uri=uri, run_dir=out, rank=rank, world_size=world)


def test_two_ranks_find_the_head_of_one(pretrained: tuple[str, str], tmp_path: Path) -> None:
    uri, run = pretrained
    train(frozen(run), data_uri=uri, run_dir=str(tmp_path / "one"))
    run_ranks(_ranks, 2, tmp_path, uri, run, str(tmp_path / "two"))
    one, two = final_tensors(tmp_path / "one"), final_tensors(tmp_path / "two")
    assert torch.allclose(one["head.weight"], two["head.weight"], atol=1e-4)
    assert values_of(tmp_path / "one")[48]["val/top1"] == values_of(tmp_path / "two")[48]["val/top1"]


def test_a_probe_without_a_checkpoint_is_refused() -> None:
    with pytest.raises(ValueError, match="head_start probe fits a head of classes on the features of init_from"):
        dataclasses.replace(debug(), head_start="probe")
    assert dataclasses.replace(debug(), model=FocusViTConfig(image_px=32)).head_start == "random"
