"""One step: losses, clipping, precision, budgets and the guard, against the formula or the plain way to do it."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import focusvit.train.loop
from focusvit.data.batch import Batch
from focusvit.distill.logits import DistillConfig, teacher_losses
from focusvit.runs.metrics_log import parse_metrics
from focusvit.train.loop import train
from focusvit.train.optim import OptimConfig
from focusvit.train.step import StepOptions, sample_losses, train_step
from testkit.tiny_shards import make_dataset
from testkit.tiny_training import final_tensors, small, values_of


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_dataset(tmp_path_factory.mktemp("data"))


def labelled(count: int, classes: int) -> Batch:
    ids = torch.arange(count)
    return Batch(
        images=torch.zeros(count, 3, 8, 8, dtype=torch.uint8), class_ids=ids % classes, sample_ids=ids,
    )  # fmt: skip


def points_of(folder: Path) -> list[dict[str, float]]:
    """The values of each training point, in order."""
    points = parse_metrics((folder / "metrics.jsonl").read_bytes())
    return [point["values"] for point in points if "train/loss" in point["values"]]


def test_label_smoothing_and_bce_follow_their_formulas() -> None:
    logits, batch = torch.randn(6, 5), labelled(6, 5)
    target = torch.nn.functional.one_hot(batch.class_ids, 5) * 0.8 + 0.2 / 5
    expected = -(target * logits.log_softmax(1)).sum(1)
    assert torch.allclose(sample_losses(logits, batch, 0.2), expected, atol=1e-6)
    p = logits.sigmoid()
    expected = -(target * p.log() + (1 - target) * (1 - p).log()).sum(1)
    assert torch.allclose(sample_losses(logits, batch, 0.2, "bce"), expected, atol=1e-5)


class Pixels(torch.nn.Module):
    """The smallest classifier with the model's signature."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(3, 4)

    def forward(self, images: Any, maps: Any = None, num_tokens: Any = None) -> Any:
        return self.head(images.float().mean((2, 3)) / 255)


def pixels_batch() -> Batch:
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 255, (8, 3, 8, 8), dtype=np.uint8))
    return dataclasses.replace(labelled(8, 4), images=images)


@pytest.mark.parametrize("clip", [0.0, 0.01, 1e9])
def test_clipping_shortens_the_gradient_and_reports_the_whole(clip: float) -> None:
    torch.manual_seed(0)
    model = Pixels()
    plain = copy.deepcopy(model)
    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    sums = train_step(model, sgd, pixels_batch(), StepOptions(global_batch=8, clip_norm=clip))
    loss = sample_losses(plain(pixels_batch().images), pixels_batch(), 0.0).mean()
    gradient = torch.cat([g.ravel() for g in torch.autograd.grad(loss, list(plain.parameters()))])
    assert float(sums.grad_norm) == pytest.approx(float(gradient.norm()), rel=1e-4)
    moved = torch.cat([(b - a).ravel() for a, b in zip(model.parameters(), plain.parameters())])
    expected = gradient * min(1.0, clip / float(gradient.norm())) if clip else gradient
    assert torch.allclose(moved, expected, atol=1e-5)


def test_distillation_soft_and_hard_follow_their_formulas() -> None:
    student, teacher = torch.randn(4, 5), torch.randn(4, 5)
    p, q = (teacher / 2).softmax(1), (student / 2).softmax(1)
    expected = 4 * (p * (p.log() - q.log())).sum(1)
    assert torch.allclose(teacher_losses(student, teacher, DistillConfig(temperature=2.0)), expected, atol=1e-5)
    hard = teacher_losses(student, teacher, DistillConfig(hard=True))
    assert torch.allclose(hard, -student.log_softmax(1)[torch.arange(4), teacher.argmax(1)], atol=1e-6)


def test_bf16_computes_in_bf16_and_keeps_weights_in_fp32(uri: str, tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        train(small(precision=precision), data_uri=uri, run_dir=str(tmp_path / precision))
    fp32, bf16 = values_of(tmp_path / "fp32"), values_of(tmp_path / "bf16")
    assert all(bf16[s]["train/loss"] == pytest.approx(fp32[s]["train/loss"], rel=0.03) for s in fp32)
    assert any(bf16[s]["train/loss"] != fp32[s]["train/loss"] for s in fp32)
    assert all(v.dtype == torch.float32 for v in final_tensors(tmp_path / "bf16").values())


@pytest.mark.soak
def test_compiled_training_takes_the_same_steps(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    whole = torch.compile
    compile = lambda model, **how: asked.append(model) or whole(model, backend="aot_eager", **how)  # noqa: E731
    monkeypatch.setattr(torch, "compile", compile)
    config = small(epochs=1, optim=OptimConfig(lr=1e-4, warmup_epochs=1))
    train(config, data_uri=uri, run_dir=str(tmp_path / "eager"))
    train(dataclasses.replace(config, compile=True), data_uri=uri, run_dir=str(tmp_path / "compiled"))
    eager, compiled = final_tensors(tmp_path / "eager"), final_tensors(tmp_path / "compiled")
    assert len(asked) == 1 and eager.keys() == compiled.keys()  # no name of the wrapper in the checkpoint
    assert all(torch.allclose(eager[k], compiled[k], atol=1e-4) for k in eager)


def test_token_budgets_are_drawn_per_batch(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int | None] = []
    original = focusvit.train.loop.train_step

    def step(model: Any, optimizer: Any, batch: Any, options: StepOptions) -> Any:
        seen.append(batch.num_tokens)
        return original(model, optimizer, batch, options)

    monkeypatch.setattr(focusvit.train.loop, "train_step", step)
    config = small(token_budgets=(4, 8, 12), epochs=6)
    train(config, data_uri=uri, run_dir=str(tmp_path / "a"))
    assert set(seen) == {4, 8, 12} and len(seen) == config.num_steps(50)
    assert [round(values["perf/tokens_per_image"]) for values in points_of(tmp_path / "a")] == seen


def test_a_loss_spike_is_skipped_and_counted(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One batch with a far larger loss, after the norms have settled, moves no weight."""
    original, before_after = focusvit.train.loop.train_step, []

    def step(model: Any, optimizer: Any, batch: Any, options: StepOptions) -> Any:
        count[0] += 1
        if count[0] != 60:
            return original(model, optimizer, batch, options)
        weights = [p.detach().clone() for p in model.parameters()]
        sums = original(model, optimizer, batch, dataclasses.replace(options, world_size=1000))
        before_after.append((weights, [p.detach().clone() for p in model.parameters()]))
        return sums

    count = [0]
    monkeypatch.setattr(focusvit.train.loop, "train_step", step)
    config = small(
        epochs=24, optim=OptimConfig(spike_factor=20.0), eval_every_epochs=24, checkpoint_every_epochs=24,
        log_every_steps=10,
    )  # fmt: skip
    train(config, data_uri=uri, run_dir=str(tmp_path))
    ((before, after),) = before_after
    assert before and all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert points_of(tmp_path)[-1]["train/skipped_spikes"] == 1
    assert points_of(tmp_path)[-1]["train/skipped_nonfinite"] == 0
