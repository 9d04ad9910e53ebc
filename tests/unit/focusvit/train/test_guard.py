"""Guard rails: a bad step moves nothing, is counted, kept and can be run again; training goes on or says why not."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch.nn import functional

import focusvit.train.loop
from focusvit.data.order import key_of
from focusvit.distill.logits import DistillConfig, teacher_losses
from focusvit.model.model import FocusViT
from focusvit.runs.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint
from focusvit.runs.run_dir import RunDir
from focusvit.runs.writer import CheckpointWriter
from focusvit.train.config import TrainConfig
from focusvit.train.guard import Guard
from focusvit.train.loop import train
from focusvit.train.optim import OptimConfig, build_optimizer
from focusvit.train.replay import main as replay_main
from focusvit.train.replay import replay
from focusvit.train.watch import DivergedError
from pipeline.errors import UsageError
from testkit.tiny_shards import make_dataset
from testkit.tiny_training import small, values_of


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_dataset(tmp_path_factory.mktemp("data"))


def test_the_guard_skips_what_is_not_finite_and_what_is_far_above_the_mean() -> None:
    guard = Guard(5.0, "cpu")
    assert [float(guard.judge(torch.tensor(v))) for v in (1.0, float("nan"), float("inf"))] == [0.0, 1.0, 1.0]
    for _ in range(60):
        guard.judge(torch.tensor(1.0))
    assert float(guard.judge(torch.tensor(4.9))) == 0.0
    assert float(guard.judge(torch.tensor(7.0))) == 1.0
    assert float(guard.num_nonfinite) == 2 and float(guard.num_spikes) == 1
    other = Guard(5.0, "cpu")
    other.fill(guard.tensors())
    assert float(other.mean_norm) == float(guard.mean_norm) and float(other.num_used) == float(guard.num_used)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_skipped_step_moves_nothing(name: Any) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 3)
    optimizer = build_optimizer(model, OptimConfig(name=name))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for bad in (1.0, 0.0):
        model(torch.ones(2, 3)).sum().backward()
        optimizer.grad_scale, optimizer.found_inf = None, torch.tensor(bad)  # type: ignore[attr-defined]
        optimizer.step()
        moved = any(not torch.equal(before[k], v) for k, v in model.state_dict().items())
        assert moved == (bad == 0.0)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_first_step_that_is_skipped_leaves_no_trace(name: Any) -> None:
    def trained(skip_first: bool) -> torch.Tensor:
        weight = torch.nn.Parameter(torch.ones(64, 64))
        optimizer = build_optimizer(torch.nn.ParameterDict({"w": weight}), OptimConfig(name=name, weight_decay=0))
        for step in range(0 if skip_first else 1, 4):
            weight.grad = torch.full_like(weight, float("nan") if step == 0 else float(step))
            optimizer.grad_scale = None  # type: ignore[attr-defined]
            optimizer.found_inf = torch.tensor(float(step == 0))  # type: ignore[attr-defined]
            optimizer.step()
        return weight.detach()

    _junk = [torch.full((64, 64), 7e7) for _ in range(50)]  # what memory may hold that nobody has filled
    del _junk
    assert torch.equal(trained(skip_first=True), trained(skip_first=False))


def poisoned(monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> None:
    """Make the loss of these steps NaN, through one class id's logit."""
    original, count = focusvit.train.loop.train_step, [0]

    def step(model: Any, optimizer: Any, batch: Any, options: Any) -> Any:
        count[0] += 1
        if count[0] in steps:
            with torch.no_grad():
                model.head.bias[0] = float("nan")
        return original(model, optimizer, batch, options)

    monkeypatch.setattr(focusvit.train.loop, "train_step", step)


def test_a_bad_step_is_kept_and_replayed(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned(monkeypatch, {4})
    seldom = small(epochs=12, eval_every_epochs=12, checkpoint_every_epochs=12)
    with pytest.raises(DivergedError, match="in 20 steps in a row"):  # every later step is bad: the weights are
        train(seldom, data_uri=uri, run_dir=str(tmp_path))
    dumps = sorted((tmp_path / "dumps").iterdir())
    assert len(dumps) == 3 and dumps[0].name == f"{3 * 17:012d}"
    found = replay(str(dumps[0]))
    assert found["samples_seen"] == 51 and np.isnan(found["loss"])
    assert found["first_module"] == "head" and len(found["sample_ids"]) == 17
    with pytest.raises(UsageError, match="is no dump"):
        replay(str(tmp_path))
    with pytest.raises(UsageError, match=r"no batch of rank 7.*ranks 0"):
        replay(str(dumps[0]), rank=7)
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="torch sees no GPU"):
            replay_main([str(dumps[0]), "--device", "cuda"])


def test_nothing_but_bad_steps_stops_with_the_knob(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned(monkeypatch, {1})
    config = small(epochs=12, eval_every_epochs=12, checkpoint_every_epochs=12)
    with pytest.raises(DivergedError, match=r"not finite in 20 steps in a row.*Lower optim\.lr"):
        train(config, data_uri=uri, run_dir=str(tmp_path))


def test_memory_that_runs_out_is_told_with_the_knob(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(*args: Any, **options: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(focusvit.train.loop, "train_step", step)
    with pytest.raises(UsageError, match=r"memory ran out with 17 images .* --micro-batch 8"):
        train(small(), data_uri=uri, run_dir=str(tmp_path))


def test_a_preemption_notice_makes_a_checkpoint_at_once(uri: str, tmp_path: Path) -> None:
    config = small(epochs=18, eval_every_epochs=18, checkpoint_every_epochs=18)
    saved: list[int] = []
    train(
        config, data_uri=uri, run_dir=str(tmp_path), poll_preemption=lambda: True,
        on_checkpoint=lambda samples, metrics: saved.append(samples),
    )  # fmt: skip
    assert saved == [50 * 17, config.num_steps(50) * 17]


def test_a_failed_write_stops_the_training() -> None:
    writer = CheckpointWriter()

    def write() -> None:
        raise OSError("disk full")

    writer.submit(write)
    with pytest.raises(OSError, match="disk full"):
        writer.wait()
    writer.wait()


def test_distillation_pulls_towards_the_teacher(uri: str, tmp_path: Path) -> None:
    train(small(), data_uri=uri, run_dir=str(tmp_path / "teacher"))
    config = small(distill=DistillConfig(teacher=str(tmp_path / "teacher"), weight=1.0, temperature=2.0))
    train(config, data_uri=uri, run_dir=str(tmp_path / "student"))
    plain, taught = values_of(tmp_path / "teacher"), values_of(tmp_path / "student")
    assert (
        taught[17]["train/loss"] < 0.3 * plain[17]["train/loss"]
    )  # the same start: two softened distributions are near
    assert RunDir(str(tmp_path / "student")).latest()
    logits = torch.randn(3, 5)
    assert torch.allclose(teacher_losses(logits, logits, DistillConfig(temperature=3.0)), torch.zeros(3), atol=1e-6)


def test_a_replay_has_the_teacher_and_the_micro_batches_of_its_training(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = RunDir(str(tmp_path / "teacher"))
    train(small(epochs=0.3), data_uri=uri, run_dir=teacher.uri)
    record, weights = read_checkpoint(teacher.uri)
    weights["head.weight"][:] = 3e38  # a number, and its sums are none
    save_checkpoint(record.uri, record, weights)
    config = small(epochs=12, micro_batch=5, distill=DistillConfig(teacher=teacher.uri))
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, drop_path=0.5))
    with pytest.raises(DivergedError):
        train(config, data_uri=uri, run_dir=str(tmp_path / "student"))
    kept = str(min((tmp_path / "student" / "dumps").iterdir()))
    found = replay(kept)
    assert found["first_module"] == "teacher" and len(found["sample_ids"]) == 17 and not found["teacher_left_out"]

    (tmp_path / "teacher").rename(tmp_path / "gone")
    found = replay(kept)
    assert found["first_module"] is None and str(tmp_path / "teacher") in found["teacher_left_out"]
    assert found["loss"] == pytest.approx(slow_loss(kept, config), rel=1e-6)
    assert found["loss"] != pytest.approx(slow_loss(kept, dataclasses.replace(config, micro_batch=17)), rel=1e-6)
    assert replay_main([kept]) == 0 and "without the teacher, which could not be read" in capsys.readouterr().out


def slow_loss(kept: str, config: TrainConfig) -> float:
    """The mean loss against the labels of the first step, as micro-batches of the training draw it."""
    model = FocusViT(dataclasses.replace(config.model, num_classes=4)).train()
    model.load_state_dict(safetensors.torch.load_file(Path(kept, "model.safetensors")))
    rows = safetensors.torch.load_file(Path(kept, "batch-0.safetensors"))
    torch.manual_seed(key_of("step", config.seed, 0, 0))
    losses = []
    for start in range(0, 17, config.micro_batch or 17):
        part = {name: value[start : start + (config.micro_batch or 17)] for name, value in rows.items()}
        logits = model(part["images"], part["maps"], config.model.tokens)
        losses.append(
            functional.cross_entropy(
                logits, part["class_ids"], reduction="none", label_smoothing=config.label_smoothing
            )
        )
    return float(torch.cat(losses).detach().mean())


def test_a_teacher_of_another_size_is_refused(uri: str, tmp_path: Path) -> None:
    train(small(epochs=0.3), data_uri=uri, run_dir=str(tmp_path / "teacher"))
    base = small(distill=DistillConfig(teacher=str(tmp_path / "teacher")))
    config = dataclasses.replace(
        base, model=dataclasses.replace(base.model, image_px=40), data=dataclasses.replace(base.data, image_px=40)
    )
    with pytest.raises(UsageError, match="takes 32 px images, the student 40 px"):
        train(config, data_uri=uri, run_dir=str(tmp_path / "student"))


@pytest.mark.parametrize("lr", [1e3, 1e6])
def test_a_diverged_training_fails_whatever_its_length(lr: float, uri: str, tmp_path: Path) -> None:
    """At 1e3 the weights are finite and answer nonsense, at 1e6 the loss is no number; three steps tell."""
    config = small(epochs=1, optim=OptimConfig(lr=lr, warmup_epochs=0))
    for _ in range(2):  # the same command again ends in the same way
        with pytest.raises(DivergedError, match=r"validation loss at 51 samples is .* diverged\. Lower optim\.lr"):
            train(config, data_uri=uri, run_dir=str(tmp_path))
    assert RunDir(str(tmp_path)).latest() == 51  # saved first, to look into


def test_weights_that_are_no_numbers_are_never_saved(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = focusvit.train.loop.train_step

    def broken(model, *rest):
        sums = step(model, *rest)
        model.head.bias.data[0] = float("nan")
        return sums

    monkeypatch.setattr(focusvit.train.loop, "train_step", broken)
    with pytest.raises(DivergedError, match="weights were no finite numbers at 17 samples, so no checkpoint was made"):
        train(small(checkpoint_every_epochs=0.3), data_uri=uri, run_dir=str(tmp_path))
    assert RunDir(str(tmp_path)).checkpoints() == []


def test_the_checkpoint_is_there_before_scoring_begins(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scoring fails: the stretch is not lost, and the next start scores first and goes on as if nothing had been."""
    config, run = small(epochs=2), RunDir(str(tmp_path / "parts"))

    def fails(*arguments, **options):
        raise RuntimeError("CUDA error")

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="CUDA error"):
        patched.setattr(focusvit.train.loop, "tally", fails)
        train(config, data_uri=uri, run_dir=run.uri)
    assert run.latest() == 51 and load_checkpoint(run.uri).metrics == {}
    train(config, data_uri=uri, run_dir=run.uri)
    train(config, data_uri=uri, run_dir=str(tmp_path / "whole"))
    assert values_of(run.uri) == values_of(tmp_path / "whole")
    assert load_checkpoint(run.uri).metrics == load_checkpoint(str(tmp_path / "whole")).metrics != {}
