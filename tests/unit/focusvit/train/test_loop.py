"""The loop: N steps equal k steps, a stop and the rest, bit by bit; slices and micro-batches change nothing."""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from focusvit.data.batch import Batch
from focusvit.data.config import MixConfig
from focusvit.model.model import FocusViT
from focusvit.recipes.small import debug
from focusvit.runs.checkpoint import load_checkpoint, load_weights, read_checkpoint
from focusvit.runs.run_dir import RunDir
from focusvit.train.loaders import Loaders, of_shards
from focusvit.train.loop import TrainConfig, for_dataset, train
from focusvit.train.optim import OptimConfig, build_optimizer, decayed, lr_share, parameter_groups
from focusvit.train.step import MovingAverage, StepOptions, sample_losses, train_step
from pipeline.errors import DataError, UsageError
from pipeline.shards.dataset import Dataset, open_dataset
from testkit import model_reference as reference
from testkit.tiny_shards import make_dataset
from testkit.tiny_training import Stop, final_tensors, run_with_stops, small, values_of


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_dataset(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("ema", [None, 0.9])
def test_stopped_and_resumed_equals_uninterrupted_bit_by_bit(uri: str, tmp_path: Path, ema: float | None) -> None:
    mix = MixConfig(mixup=0.8, cutmix=1.0, cutmix_shape="superpixels")
    drawn = dataclasses.replace(debug().data, colour="3-augment", colour_jitter=0.3, erase=0.3, mix=mix)
    config = small(ema_decay=ema, model=dataclasses.replace(debug().model, drop_path=0.2), data=drawn)
    run_with_stops(config, uri, str(tmp_path / "whole"), 0)
    run_with_stops(config, uri, str(tmp_path / "parts"), 3)
    assert values_of(tmp_path / "parts") == values_of(tmp_path / "whole")
    left, right = final_tensors(tmp_path / "whole"), final_tensors(tmp_path / "parts")
    assert left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def test_loaders_of_the_caller_train_and_resume_as_the_shards_do(uri: str, tmp_path: Path) -> None:
    config, data = small(epochs=1), open_dataset(uri)
    config = for_dataset(config, data)
    run_with_stops(config, uri, str(tmp_path / "shards"), 0)
    with pytest.raises(Stop):
        train(config, run_dir=str(tmp_path / "brought"), loaders=brought(config, data), on_checkpoint=stop)
    assert 0 < (RunDir(str(tmp_path / "brought")).latest() or 0) < 51
    found = train(config, run_dir=str(tmp_path / "brought"), loaders=brought(config, data))
    assert found["samples_seen"] == 51 and values_of(tmp_path / "brought") == values_of(tmp_path / "shards")
    left, right = final_tensors(tmp_path / "shards"), final_tensors(tmp_path / "brought")
    assert left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def brought(config: TrainConfig, data: Dataset) -> Loaders:
    """Whoever makes loaders knows neither where a run stands nor how long it is: both are wrong here."""
    made = of_shards(data, config, torch.device("cpu"), 0, 1)
    made.train.samples_seen, made.train.total_samples = 7, 8
    return made


def stop(samples: int, metrics: dict[str, float]) -> None:
    raise Stop


def test_a_finished_run_does_nothing_more(uri: str, tmp_path: Path) -> None:
    config = small(epochs=1)
    first = train(config, data_uri=uri, run_dir=str(tmp_path))
    size = (tmp_path / "metrics.jsonl").stat().st_size
    assert train(config, data_uri=uri, run_dir=str(tmp_path)) == first
    assert (tmp_path / "metrics.jsonl").stat().st_size == size


def test_finetuning_takes_the_weights_and_a_new_head(uri: str, tmp_path: Path) -> None:
    train(small(epochs=1), data_uri=uri, run_dir=str(tmp_path / "first"))
    start = small(
        epochs=0.3, init_from=str(tmp_path / "first"), optim=OptimConfig(lr=1e-12, warmup_epochs=0, weight_decay=0)
    )
    train(start, data_uri=uri, run_dir=str(tmp_path / "second"))
    before, after = (RunDir(str(tmp_path / n)) for n in ("first", "second"))
    old, new = (load_weights(r.checkpoint_uri(r.latest() or 0)) for r in (before, after))
    assert all(torch.allclose(old[k], new[k], atol=1e-6) for k in old if not k.startswith("head."))
    assert not torch.allclose(old["head.weight"], new["head.weight"], atol=1e-4)


def test_finetuning_at_another_image_size_interpolates_our_own_positions(uri: str, tmp_path: Path) -> None:
    plain = dataclasses.replace(debug().model, position="pooled")
    train(small(epochs=0.4, model=plain), data_uri=uri, run_dir=str(tmp_path / "first"))
    wide = dataclasses.replace(plain, image_px=64)
    config = small(
        epochs=0.3, init_from=str(tmp_path / "first"), model=wide, data=dataclasses.replace(debug().data, image_px=64),
        optim=OptimConfig(lr=1e-12, warmup_epochs=0, weight_decay=0),
    )  # fmt: skip
    train(config, data_uri=uri, run_dir=str(tmp_path / "second"))
    old, new = (read_checkpoint(str(tmp_path / name))[1] for name in ("first", "second"))
    side = plain.grid[0]
    table = old["pos_embed"][:, -side * side :].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    expected = functional.interpolate(table, (2 * side, 2 * side), mode="bicubic", align_corners=False, antialias=True)
    found = new["pos_embed"][:, -4 * side * side :].reshape(1, 2 * side, 2 * side, -1).permute(0, 3, 1, 2)
    assert torch.allclose(found, expected, atol=1e-5) and float(expected.std()) > 1e-3
    assert all(torch.allclose(old[k], new[k], atol=1e-6) for k in old if not k.startswith(("head.", "pos_embed")))


def test_too_many_bad_samples_stop_the_training(tmp_path: Path) -> None:
    uri = make_dataset(tmp_path / "data", splits={"train": 30, "val": 4}, bad=range(0, 30, 2))
    config = small(data=dataclasses.replace(small().data, max_bad_share=0.05))
    with pytest.raises(DataError, match=r"did not decode and were replaced, more than data\.max_bad_share = 0\.05"):
        train(config, data_uri=uri, run_dir=str(tmp_path / "run"))


def test_replaced_samples_are_counted_over_stops(tmp_path: Path) -> None:
    uri = make_dataset(tmp_path / "data", bad=range(0, 50, 5))
    config = small(data=dataclasses.replace(small().data, max_bad_share=0.5))
    run_with_stops(config, uri, str(tmp_path / "whole"), 0)
    run_with_stops(config, uri, str(tmp_path / "parts"), 3)
    whole, parts = values_of(tmp_path / "whole"), values_of(tmp_path / "parts")
    assert parts == whole and whole[max(whole)]["train/replaced_samples"] >= 10
    assert load_checkpoint(str(tmp_path / "parts")).counters["replaced_samples"] > 0


def test_a_checkpoint_at_a_notice_splits_no_point_of_the_curves(uri: str, tmp_path: Path) -> None:
    config = small(epochs=18, log_every_steps=40, eval_every_epochs=18, checkpoint_every_epochs=18)

    def die(samples: int, metrics: dict) -> None:
        raise Stop

    for folder, on_checkpoint in (("whole", None), ("parts", die)):
        with contextlib.suppress(Stop):
            run: dict[str, Any] = {"data_uri": uri, "run_dir": str(tmp_path / folder)}
            train(config, poll_preemption=lambda: True, on_checkpoint=on_checkpoint, **run)  # at step 50
    train(config, **run)
    assert values_of(tmp_path / "parts") == values_of(tmp_path / "whole")


def test_a_missing_split_is_named(uri: str, tmp_path: Path) -> None:
    config = small(data=dataclasses.replace(small().data, eval_split="test"))
    with pytest.raises(UsageError, match="no split 'test'"):
        train(config, data_uri=uri, run_dir=str(tmp_path))


def a_batch(size: int = 7, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    maps = (np.arange(32 * 32).reshape(1, 32, 32) * 8 // 1024).repeat(size, 0).astype(np.uint8)
    return Batch(
        images=torch.from_numpy(rng.integers(0, 255, (size, 3, 32, 32)).astype(np.uint8)),
        maps=torch.from_numpy(maps),
        num_tokens=8,
        class_ids=torch.from_numpy(rng.integers(0, 4, size)),
        sample_ids=torch.arange(size),
    )


def stepped(**options) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = FocusViT(dataclasses.replace(debug().model, num_classes=4))
    optimizer = build_optimizer(model, OptimConfig())
    train_step(model, optimizer, a_batch(), StepOptions(global_batch=7, label_smoothing=0.1, clip_norm=1.0, **options))
    return model.state_dict()


def test_micro_batches_change_nothing_but_memory() -> None:
    whole = stepped()
    for size in (1, 2, 5):
        parts = stepped(micro_batch=size)
        assert all(torch.allclose(whole[k], parts[k], atol=2e-5) for k in whole)


def test_the_loss_of_a_mixed_sample_is_the_weighted_sum() -> None:
    logits = torch.randn(3, 5)
    share = torch.tensor([1.0, 0.25, 0.0])
    first, second = torch.tensor([0, 1, 2]), torch.tensor([3, 3, 4])
    empty = dataclasses.replace(a_batch(3), class_ids=first)
    mixed = dataclasses.replace(empty, mix_ids=second, mix_share=share)
    for loss in ("softmax", "bce"):
        a = sample_losses(logits, empty, 0.0, loss)
        b = sample_losses(logits, dataclasses.replace(empty, class_ids=second), 0.0, loss)
        assert torch.allclose(sample_losses(logits, mixed, 0.0, loss), share * a + (1 - share) * b, atol=1e-5)


def test_lr_rises_then_falls_to_its_share() -> None:
    values = [lr_share(s, 100, 1000, 0.01) for s in range(0, 1001, 10)]
    assert values[0] == 0 and max(values) == values[10] == 1.0
    assert values[:11] == sorted(values[:11]) and values[10:] == sorted(values[10:], reverse=True)
    assert values[-1] == pytest.approx(0.01)


def test_vectors_are_not_decayed_and_layers_get_their_share() -> None:
    model = FocusViT(debug().model)
    groups = parameter_groups(model, OptimConfig(layer_decay=0.5))
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
    for group in groups:
        if group["weight_decay"]:
            assert all(p.squeeze().ndim > 1 for p in group["params"])
    scale = {id(p): g["lr_scale"] for g in groups for p in g["params"]}
    assert scale[id(model.head.weight)] == 1.0
    stem = [p for n, p in model.named_parameters() if n.startswith("patch_embed.")]
    assert stem and all(scale[id(p)] == min(scale.values()) < 0.3 for p in stem)


def test_learned_tokens_do_not_decay_and_every_matrix_does() -> None:
    """By kind: class token, positions, latent queries, sharpness and norms hold still when their gradient is 0."""
    kinds: dict[str, set[bool]] = {}
    for name, values in {**reference.VARIANTS, **reference.CONTROL_VARIANTS}.items():
        model = FocusViT(reference.tiny_config(**values))
        groups = parameter_groups(model, OptimConfig(lr=0.1, weight_decay=0.5))
        decay = {id(p): g["weight_decay"] for g in groups for p in g["params"]}
        for key, parameter in model.named_parameters():
            kinds.setdefault(key.rpartition(".")[2], set()).add(decay[id(parameter)] > 0)
        if name == "latent_learned":
            before = {key: p.detach().clone() for key, p in model.named_parameters()}
            optimizer = build_optimizer(model, OptimConfig(lr=0.1, weight_decay=0.5))
            for parameter in model.parameters():
                parameter.grad = torch.zeros_like(parameter)
            optimizer.step()
            shrunk = {key for key, p in model.named_parameters() if not torch.equal(p, before[key])}
            assert "latent_start.query" not in shrunk and "latent_start.key.weight" in shrunk
    # `weight` is of matrices and of norms; all the other kinds never decay.
    assert kinds.pop("weight") == {True, False}
    assert kinds == {kind: {False} for kind in ("bias", "cls_token", "pos_embed", "query", "log_sharpness")}


def test_layers_decay_towards_the_pixels_in_every_variant() -> None:
    """What stands before the blocks moves least, what follows them most, wherever its name puts it."""
    below = {"patch_embed", "pos_embed", "cls_token", "position", "pool"}
    seen = set()
    for values in {**reference.VARIANTS, **reference.CONTROL_VARIANTS}.values():
        model = FocusViT(reference.tiny_config(**values))
        scale = {
            id(p): group["lr_scale"]
            for group in parameter_groups(model, OptimConfig(layer_decay=0.5))
            for p in group["params"]
        }
        top = model.config.depth + 1
        for name, parameter in model.named_parameters():
            first, *rest = name.split(".")
            seen.add(first)
            layer = int(rest[0]) + 1 if first == "blocks" else 0 if first in below else top
            assert scale[id(parameter)] == 0.5 ** (top - layer), name
    assert below < seen


def test_every_matrix_that_decays_is_called_weight() -> None:
    variants = {**reference.VARIANTS, **reference.CONTROL_VARIANTS}.values()
    models = [FocusViT(reference.tiny_config(**values)) for values in variants]
    names = {key for model in models for key, _ in model.named_parameters()}
    decays = set().union(*(decayed(model) for model in models))
    assert decays <= names and {name.rpartition(".")[2] for name in decays} == {"weight"}


def test_the_moving_average_follows_the_formula() -> None:
    model = torch.nn.Linear(2, 2)
    average = MovingAverage(model, 0.5)
    before = model.weight.detach().clone()
    with torch.no_grad():
        model.weight += 1.0
    average.update(model, 1)
    assert torch.allclose(average.weights["weight"], before + 1 - 2 / 11)


def test_config_errors_name_the_key() -> None:
    with pytest.raises(ValueError, match=r"model\.image_px is 32 and data\.image_px is 64"):
        dataclasses.replace(debug(), data=dataclasses.replace(debug().data, image_px=64))
    for changes in ({"token_budgets": (4, 1025)}, {"model": dataclasses.replace(debug().model, tokens=1025)}):
        with pytest.raises(ValueError, match="1025 tokens cannot be cut from maps of 32 x 32 pixels; choose 1 to 1024"):
            dataclasses.replace(debug(), **changes)
    with pytest.raises(ValueError, match=r"data\.map_px gives maps of 18 px"):
        dataclasses.replace(debug(), data=dataclasses.replace(debug().data, map_px=18))
    with pytest.raises(ValueError, match="global_batch"):
        dataclasses.replace(debug(), global_batch=0)
