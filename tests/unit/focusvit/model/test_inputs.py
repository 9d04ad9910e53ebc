"""Bad and odd input, at every place where values enter: the right answer, or a ValueError with shapes and values."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from focusvit.data.batch import Batch
from focusvit.model.inputs import check_values
from focusvit.model.model import FocusViT
from focusvit.predict.predictor import Predictor
from testkit import model_reference as reference
from testkit.tiny_checkpoint import make_checkpoint
from tests.benchmarks.study.arrays import collect

CONFIG = reference.tiny_config()
VARIANTS = {**reference.VARIANTS, **reference.CONTROL_VARIANTS}


def good() -> tuple[Tensor, Tensor]:
    return reference.images(3, CONFIG), reference.maps(3, CONFIG, 7)


def as_batch(images: Tensor, maps: Tensor) -> Batch:
    ids = torch.arange(3)
    return Batch(images=images, maps=maps, num_tokens=7, class_ids=ids, sample_ids=ids)


def changed(maps: Tensor, row: int, old: int, new: int) -> Tensor:
    found = maps.short()
    found[row][found[row] == old] = new
    return found


WRONG_MAPS = {
    "ids above the tokens": (lambda m: changed(m, 1, 6, 7), "0..7", "0..6"),
    "ids below 0": (lambda m: changed(m, 2, 0, -1), "-1..6", "0..6"),
    "an absent region": (lambda m: changed(m, 1, 3, 2), "image 1", "6 regions"),
    "more regions than tokens": (lambda m: reference.maps(3, CONFIG, 12), "0..11", "0..6"),
    "fewer regions than tokens": (lambda m: reference.maps(3, CONFIG, 4), "image 0", "4 regions"),
}


@pytest.mark.parametrize("name", WRONG_MAPS)
def test_a_wrong_map_is_named_at_every_boundary(name: str) -> None:
    change, *words = WRONG_MAPS[name]
    images, maps = good()
    wrong = as_batch(images, change(maps))
    for check in (
        lambda: check_values(CONFIG, wrong.images, wrong.maps),
        wrong.check,
        lambda: collect([as_batch(images, maps), wrong], "some data"),
    ):
        with pytest.raises(ValueError) as error:
            check()
        assert all(word in str(error.value) for word in words), error.value


def test_predictions_check_what_they_give_to_the_model(tmp_path: Path) -> None:
    predictor = Predictor.of(make_checkpoint(tmp_path))
    pixels = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
    view = predictor.view(cv2.imencode(".png", pixels)[1].tobytes())
    assert predictor.predict([view])[0].shares.sum() == pytest.approx(1, abs=1e-5)
    assert view.map is not None
    broken = replace(view, map=np.where(view.map == 2, 1, view.map))
    with pytest.raises(ValueError, match=r"image 1 holds 8 regions for 9 tokens; absent: \[2\]"):
        predictor.predict([view, broken])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_pixels_that_are_no_numbers_are_named(value: float) -> None:
    images, maps = good()
    broken = images.float()
    broken[2, 1, 5, 5] = value
    with pytest.raises(ValueError, match="image 2 of the batch holds NaN or infinite pixels"):
        check_values(CONFIG, broken, maps)
    with pytest.raises(ValueError, match=r"images must be uint8 \(B, 3, H, W\), not torch.float32"):
        as_batch(broken, maps).check()


@pytest.mark.parametrize("shape", [(3, 4, 4), (3, 16, 23), (3, 3, 6), (2, 4, 6), (3, 4), (3, 0, 6)])
def test_a_map_that_does_not_lie_on_the_patches_is_refused(shape: tuple[int, ...]) -> None:
    images, _ = good()
    with pytest.raises(ValueError) as error:
        FocusViT(CONFIG)(images, torch.zeros(shape, dtype=torch.uint8))
    assert str(shape) in str(error.value) and "(3, 3, 16, 24)" in str(error.value)


@pytest.mark.parametrize("shape", [(3, 3, 16, 16), (3, 3, 24, 16), (3, 1, 16, 24), (3, 16, 24)])
def test_an_image_of_another_size_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError) as error:
        FocusViT(CONFIG)(torch.zeros(shape, dtype=torch.uint8), good()[1])
    assert str(shape) in str(error.value) and "(16, 24)" in str(error.value)


def test_one_region_is_the_mean_of_the_image() -> None:
    """K = 1: the only token is the mean of all patches after the grid blocks."""
    model = FocusViT(reference.tiny_config(pooling="mean", position="pooled")).eval()
    images, maps = good()
    seen = model.forward_intermediates(images, torch.zeros_like(maps), 1)
    torch.testing.assert_close(seen["tokens"], seen["grid"].mean(1, keepdim=True), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen["regions"].centre, torch.full((3, 1, 2), 0.5))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_constant_image_is_no_special_case(name: str) -> None:
    """Every patch equal: no spread, equal saliency, equal similarity. Logits and gradients stay finite."""
    torch.manual_seed(0)
    model = reference.shaken(FocusViT(reference.tiny_config(**VARIANTS[name]))).train()
    inputs = {**reference.inputs(model.config, 2), "images": torch.full((2, 3, 16, 24), 7, dtype=torch.uint8)}
    logits = model(**inputs)
    logits.square().sum().backward()
    assert logits.isfinite().all()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)
