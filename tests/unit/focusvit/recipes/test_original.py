"""Every row of the original repository: its recipe trains, decays and freezes what it says."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from focusvit.data.batch import Batch
from focusvit.model.groups import freeze
from focusvit.model.model import FocusViT
from focusvit.model.presets import focusvit, vit
from focusvit.recipes.original import originals
from focusvit.recipes.small import RECIPES, recipe
from focusvit.runs.checkpoint import starting_weights
from focusvit.runs.run_dir import RunDir
from focusvit.train.config import TrainConfig
from focusvit.train.learner import Learner
from focusvit.train.optim import OptimConfig, parameter_groups, set_lr
from focusvit.train.step import StepOptions, train_step
from pipeline.errors import UsageError
from testkit import model_reference as reference
from testkit.torchvision_like import torchvision_like

NAMES = tuple(originals())
SMALL = {"image_px": 16, "patch_px": 4, "width": 24, "depth": 4, "num_classes": 5}


def small_recipe(name: str, folder: Path) -> TrainConfig:
    """The recipe with its own settings, on a model that a test can train, from weights that lie in `folder`."""
    config = recipe(f"original_{name}")
    model = replace(config.model, **SMALL, tokens=None if config.model.tokens is None else 6)
    if config.init_from:
        weights = torchvision_like(width=24, heads=model.heads).state_dict()
        save_file(weights, folder / config.init_from)
        config = replace(config, init_from=str(folder / config.init_from))
    return replace(config, model=model, data=replace(config.data, image_px=16, map_px=8), global_batch=8)


def batch_of(config: TrainConfig) -> Batch:
    return Batch(
        images=reference.images(8, config.model),
        maps=reference.maps(8, config.model, 6) if config.model.needs_maps else None,
        num_tokens=6 if config.model.needs_maps else None,
        class_ids=torch.arange(8) % 5,
        sample_ids=torch.arange(8),
    ).check(5)


@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_of_every_row_starts_and_trains(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And says which parts the file had no weights for."""
    config = small_recipe(name, tmp_path)
    learner = Learner(config, torch.device("cpu"))
    learner.start(RunDir(str(tmp_path / "run")), None)
    model = learner.model
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert ("init_from" in caplog.text) is bool(config.init_from)
    assert ("new are position" in caplog.text) is bool(config.init_from and config.model.tokens)
    if config.init_from:
        source = torchvision_like(width=24, heads=config.model.heads).state_dict()
        assert torch.equal(before["patch_embed.proj.weight"], source["conv_proj.weight"])
        assert torch.equal(before["blocks.3.mlp.fc2.weight"], source["encoder.layers.encoder_layer_3.mlp.3.weight"])
    set_lr(learner.optimizer, config.optim.lr)
    step = train_step(model, learner.optimizer, batch_of(config), StepOptions(global_batch=8, guard=learner.guard))
    assert step.loss.isfinite()
    rate = {id(p): group["lr"] for group in learner.optimizer.param_groups for p in group["params"]}
    for key, weight in model.named_parameters():
        frozen = bool(config.freeze) and not key.startswith(("head", "norm"))
        assert (id(weight) in rate) is not frozen
        assert torch.equal(weight, before[key]) if frozen else weight.grad is not None
        assert frozen or not torch.equal(weight, before[key]) or not weight.grad.any()
    assert rate[id(model.head.weight)] == pytest.approx(1e-3 if config.init_from else 1e-4)


def test_rows_are_named_as_the_original_has_them() -> None:
    """Its eight models, three poolings, from scratch and from pretrained weights, and its frozen backbone."""
    rows = originals()
    assert {f"M{i}" for i in range(1, 9)} == {found for row in rows.values() for found in re.findall(r"M\d", row.about)}
    models = [row.config.model for row in rows.values()]
    assert {model.pooling for model in models if model.tokens} == {"mean", "max", "attention"}
    assert {f"original_{name}" for name in rows} <= RECIPES.keys()
    pretrained = [row.config for row in rows.values() if row.config.init_from]
    assert len(pretrained) == 9 and any(config.freeze for config in pretrained)
    size = vit("base")
    assert all((model.width, model.depth) == (size.width, size.depth) for model in models)


def test_a_missing_file_of_weights_is_named_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no file .*vit_b_16\.safetensors to start from.*--init-from"):
        starting_weights(str(tmp_path / "vit_b_16.safetensors"))


def test_weights_that_do_not_fit_are_a_mistake_of_the_user(tmp_path: Path) -> None:
    config = small_recipe("traditional_pretrained", tmp_path)
    save_file(torchvision_like(width=24, depth=5, heads=2).state_dict(), str(config.init_from))
    with pytest.raises(UsageError, match=r"init_from .*the weights do not fit the model: .*encoder_layer_4"):
        Learner(config, torch.device("cpu")).start(RunDir(str(tmp_path / "run")), None)
    for changes in ({"freeze": ("block",)}, {"optim": OptimConfig(lr_scales=("hed=2",))}):
        with pytest.raises(UsageError, match=r"no weight of the model matches '(block|hed)'; its parts are blocks"):
            Learner(replace(config, **changes), torch.device("cpu"))


def test_learning_rates_scale_by_the_last_pattern_and_spare_vectors() -> None:
    model = FocusViT(focusvit("tiny", depth=2, num_classes=3))
    freeze(model, ["blocks.0.mlp"])
    config = OptimConfig(weight_decay=0.1, lr_scales=("blocks=0.5", "blocks.1=0.7", "head=10"), layer_decay=0.5)
    of = {id(p): (g["lr_scale"], g["weight_decay"]) for g in parameter_groups(model, config) for p in g["params"]}
    named = dict(model.named_parameters())
    assert of[id(named["blocks.0.attn.qkv.weight"])] == (0.5 * 0.5**2, 0.1)
    assert of[id(named["blocks.1.attn.qkv.weight"])] == (0.7 * 0.5, 0.1)
    assert of[id(named["head.bias"])] == (10.0, 0.0)
    assert of[id(named["pos_embed"])] == (0.5**3, 0.0)
    assert id(named["blocks.0.mlp.fc1.weight"]) not in of
    for text in ("head", "=3", "head=-1", "head=0", "head=x", "head=1.2.3"):
        with pytest.raises(ValueError, match=f"optim.lr_scales holds '{text}'"):
            OptimConfig(lr_scales=(text,))
