"""Each choice of a training does what its name says, against the formula or against the plain way to do it."""

import copy
import dataclasses
import math
import socket
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

import focusvit.train.loop
from focusvit.data.batch import Batch
from focusvit.data.config import DataConfig
from focusvit.distill.logits import DistillConfig, teacher_losses
from focusvit.runs.checkpoint import load_checkpoint, load_weights
from focusvit.runs.config_json import from_json
from focusvit.runs.metrics_log import parse_metrics
from focusvit.runs.run_dir import RunDir
from focusvit.train import ranks
from focusvit.train.config import TrainConfig
from focusvit.train.loaders import in_stretches
from focusvit.train.loop import step_of_next_point, train
from focusvit.train.optim import OptimConfig, build_optimizer
from focusvit.train.step import StepOptions, sample_losses, train_step
from focusvit.train.system_metrics import SystemMetrics
from pipeline.io import storage
from pipeline.shards.dataset import open_dataset
from testkit.gloo_ranks import run_ranks
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


def one_step(config: OptimConfig, gradient: float, start: float = 2.0) -> float:
    """A 2 x 2 matrix of equal entries after one step with this gradient in each entry."""
    model = torch.nn.Linear(2, 2, bias=False)
    torch.nn.init.constant_(model.weight, start)
    optimizer = build_optimizer(model, config)
    model.weight.grad = torch.full((2, 2), gradient)
    optimizer.step()
    assert float(model.weight.detach().std()) == 0
    return float(model.weight.detach()[0, 0])


def test_adamw_and_sgd_follow_their_formulas() -> None:
    adamw = OptimConfig(name="adamw", lr=0.1, weight_decay=0.5)
    assert one_step(adamw, 3.0) == pytest.approx(2.0 * (1 - 0.1 * 0.5) - 0.1)  # Adam's first step has size lr
    sgd = OptimConfig(name="sgd", lr=0.1, weight_decay=0.5, momentum=0.9)
    gradient = 3.0 + 0.5 * 2.0
    assert one_step(sgd, 3.0) == pytest.approx(2.0 - 0.1 * (gradient + 0.9 * gradient))  # Nesterov looks ahead


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


def test_bf16_computes_in_bf16_and_keeps_weights_in_fp32(uri: str, tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        train(small(precision=precision), data_uri=uri, run_dir=str(tmp_path / precision))
    fp32, bf16 = values_of(tmp_path / "fp32"), values_of(tmp_path / "bf16")
    assert all(bf16[s]["train/loss"] == pytest.approx(fp32[s]["train/loss"], rel=0.03) for s in fp32)
    assert any(bf16[s]["train/loss"] != fp32[s]["train/loss"] for s in fp32)
    assert all(v.dtype == torch.float32 for v in final_tensors(tmp_path / "bf16").values())


@pytest.mark.parametrize(
    ("distill", "said"),
    [
        ({"weight": 0.3}, "distill.weight would do nothing: set distill.teacher"),
        ({"hard": True, "temperature": 2.0}, "distill.temperature, distill.hard"),
        ({"regions": 0.2, "teacher": "t"}, "distill.regions would do nothing: distill.target is logits"),
        (
            {"weight": 0.3, "target": "features", "regions": 0.0},
            "distill.weight would do nothing: distill.target is features",
        ),
    ],
)
def test_a_setting_of_a_teacher_that_nobody_would_read_is_refused(distill: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        small(distill=DistillConfig(**distill))
    assert small(distill=DistillConfig(weight=0.3, teacher="t")).distill.weight == 0.3


def test_points_go_by_time_and_are_a_hundred_at_least() -> None:
    config = small(log_every_steps=None)
    assert step_of_next_point(config, 0, 10_000) == 1  # nothing is measured yet
    assert step_of_next_point(config, 500, 112_590, step_ms=50.0) == 700  # 10 s of 50 ms
    assert step_of_next_point(config, 500, 112_590, step_ms=60_000.0) == 501  # a step that compiled
    assert step_of_next_point(config, 500, 1_000, step_ms=50.0) == 510
    assert step_of_next_point(config, 5, 9, step_ms=1e-9) == 6
    assert [step_of_next_point(small(log_every_steps=4), step, 9, 1.0) for step in (0, 1, 4, 6)] == [4, 4, 8, 8]


class Counted:
    """Batches 0, 1, ... of 10 samples; `alive` while somebody iterates."""

    samples_seen, alive = 0, 0

    def __init__(self, total_samples: int) -> None:
        self.total_samples: int | None = total_samples

    def __iter__(self) -> Any:
        self.alive += 1
        try:
            for start in range(self.samples_seen, self.total_samples or 0, 10):
                yield start // 10
        finally:
            self.alive -= 1


@pytest.mark.parametrize("ends", [{4}, {2, 4}, {1, 2, 3, 4}, {3}, set()])
@pytest.mark.parametrize("begin", [0, 10])
def test_the_loader_of_the_training_rests_while_a_scoring_reads(ends: set[int], begin: int) -> None:
    loader, seen = Counted(40), []
    loader.samples_seen = begin
    for batch in in_stretches(loader, ends, 10):
        seen.append(batch)
        assert loader.alive == (0 if batch + 1 in ends else 1)  # type: ignore[operator]
    assert seen == list(range(begin // 10, 4)) and loader.alive == 0


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


def points_of(folder: Path) -> list[dict[str, float]]:
    """The values of each training point, in order."""
    points = parse_metrics((folder / "metrics.jsonl").read_bytes())
    return [point["values"] for point in points if "train/loss" in point["values"]]


def test_distillation_soft_and_hard_follow_their_formulas() -> None:
    student, teacher = torch.randn(4, 5), torch.randn(4, 5)
    p, q = (teacher / 2).softmax(1), (student / 2).softmax(1)
    expected = 4 * (p * (p.log() - q.log())).sum(1)
    assert torch.allclose(teacher_losses(student, teacher, DistillConfig(temperature=2.0)), expected, atol=1e-5)
    hard = teacher_losses(student, teacher, DistillConfig(hard=True))
    assert torch.allclose(hard, -student.log_softmax(1)[torch.arange(4), teacher.argmax(1)], atol=1e-6)


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


def test_the_metric_set(uri: str, tmp_path: Path) -> None:
    """training.md's set in named sections, at most 60 names, each a finite number where it must be."""
    train(small(ema_decay=0.9), data_uri=uri, run_dir=str(tmp_path))
    names: dict[str, float] = {}
    for point in parse_metrics((tmp_path / "metrics.jsonl").read_bytes()):
        names.update(point["values"])
    wanted = (
        "train/loss train/top1 train/lr train/grad_norm train/ema_decay train/skipped_spikes train/replaced_samples "
        "perf/img_per_s perf/img_per_s_per_worker perf/tokens_per_s perf/tokens_per_image perf/step_ms "
        "perf/data_wait_share perf/mfu perf/memory_gb perf/checkpoint_blocked_ms perf/workers val/top1 val/loss "
        "system/node_0/cpu_utilization_percentage system/node_0/system_memory_usage_megabytes"
    ).split()
    assert not set(wanted) - set(names)
    assert {name.split("/")[0] for name in names} == {"train", "perf", "val", "system"}
    # A GPU adds two names to a node, five more nodes may join.
    assert len(names) + 2 + 5 * 5 <= 60
    assert all(math.isfinite(names[name]) for name in wanted)
    assert names["perf/mfu"] > 0 and 0 <= names["perf/data_wait_share"] <= 1
    assert names["perf/tokens_per_image"] == 8 and names["perf/workers"] == 1


def on_a_rank(rank: int, world_size: int) -> tuple[str, dict[str, float], dict[str, float]]:
    """What a rank says to weights that differ in the last bit, and measures on one machine and on two."""
    said, seen = "", []
    try:
        ranks.check_same(1.0 + (rank == 1) * 2.0**-52, "the weights")
    except RuntimeError as error:
        said = str(error)
    for hosts in ("aa", "ab"):
        socket.gethostname = lambda: hosts[rank]  # noqa: B023 - called within this turn
        seen.append(SystemMetrics(torch.device("cpu")).values())
    return said, seen[0], seen[1]


def test_ranks_notice_a_difference_and_measure_each_machine_once(tmp_path: Path) -> None:
    first, second = run_ranks(on_a_rank, 2, tmp_path)
    assert first == second
    said, one_machine, two_machines = first
    assert "ranks disagree about the weights: [1.0, 1.0000000000000002]" in said
    assert {name.split("/")[1] for name in one_machine} == {"node_0"}
    assert {name.split("/")[1] for name in two_machines} == {"node_0", "node_1"}
    total = psutil.virtual_memory().total / 1e6
    used = [value for name, value in (one_machine | two_machines).items() if "memory_usage" in name]
    assert len(used) == 2 and all(0 < value < total for value in used)  # not the sum over the ranks of a machine


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
