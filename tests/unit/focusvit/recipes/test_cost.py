"""`focusvit cost`: the figures of a recipe or checkpoint, those of the plain ViT of its size, and their ratios."""

import json
from pathlib import Path

import numpy as np
import pytest

from focusvit.cli import main as focusvit
from focusvit.model.model import FocusViT
from focusvit.model.presets import plain_vit_of, vit
from focusvit.options import CostConfig
from focusvit.recipes import cost
from focusvit.recipes.small import RECIPES, cost_options, debug
from pipeline.errors import UsageError
from pipeline.superpixels.segment import SuperpixelConfig
from testkit.tiny_checkpoint import make_checkpoint


def told(capsys: pytest.CaptureFixture[str], *argv: str) -> dict:
    assert focusvit(["cost", *argv, "--json", "--batch", "2", "--rounds", "1"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_recipe_stands_relative_to_the_plain_vit_with_superpixels_apart(capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, "debug")
    ours, plain, relative = found["model"], found["plain_vit"], found["relative"]
    assert (found["of"], found["device"], found["batch"]) == ("debug", "cpu", 2)
    assert ours["parameters"] == sum(p.numel() for p in FocusViT(debug().model).parameters())
    assert plain["parameters"] == sum(p.numel() for p in FocusViT(plain_vit_of(debug().model)).parameters())
    assert relative == pytest.approx({name: ours[name] / plain[name] for name in ours})
    assert plain["images_per_s_with_superpixels"] == pytest.approx(plain["images_per_s"])
    each_s = 1 / ours["images_per_s"] + found["superpixels_s"]
    assert found["superpixels_s"] > 1e-5 and ours["images_per_s_with_superpixels"] == pytest.approx(1 / each_s)


def test_a_checkpoint_is_measured_and_a_plain_vit_has_nothing_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = make_checkpoint(tmp_path / "grid", partition="grid")
    found = told(capsys, grid)
    assert found["of"] == grid and found["superpixels_s"] == 0 and found["relative"]["parameters"] > 1
    plain = make_checkpoint(tmp_path / "plain", tokens=None, position="pooled", grid_depth=0, stem="linear")
    found = told(capsys, plain)
    assert found["plain_vit"] is found["relative"] is None and found["model"]["parameters"] > 0
    assert focusvit(["cost", plain, "--batch", "1", "--rounds", "1"]) == 0
    shown = capsys.readouterr().out
    assert "peak memory, training" in shown and "relative" not in shown and "superpixels:" not in shown


def test_every_recipe_has_a_plain_vit_of_its_width_depth_and_images() -> None:
    for name in RECIPES:
        model = cost.find_model(name).model
        plain = plain_vit_of(model)
        assert (plain.width, plain.depth, plain.image_size, plain.tokens, plain.trunk) == (
            model.width, model.depth, model.image_size, None, "full",
        )  # fmt: skip
    assert plain_vit_of(cost.find_model("focusvit_small_in1k").model) == vit("small")


def test_superpixels_are_timed_by_image_with_the_settings_and_clock_given(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(cost, "segment_image", lambda image, settings: (seen.append(settings), image))
    monkeypatch.setattr(cost, "fit", lambda _, image, crop, flip, size, tokens: seen.append((size, tokens)))
    light = SuperpixelConfig(iterations=5)
    ticks = iter([90.0, 0.0, 6.0, 0.0, 4.0, 0.0, 5.0])  # the first of four rounds is not counted
    images = [np.zeros((4, 4, 3), np.uint8)] * 2
    assert cost.superpixel_seconds(images, (8, 8), 3, light, lambda: next(ticks)) == 2.5
    assert len(seen) == 16 and set(map(str, seen)) == {str(light), str(((8, 8), 3))}


def test_what_is_neither_is_named_with_the_recipes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'debgu' is neither .* checkpoint\. Did you mean 'debug'\?\s+recipes:"):
        cost_options(["debgu"])
    with pytest.raises(UsageError, match="No checkpoint at"):
        cost.find_model(str(tmp_path))
    with pytest.raises(ValueError, match="--batch is 0"):
        CostConfig(model="debug", batch=0)
