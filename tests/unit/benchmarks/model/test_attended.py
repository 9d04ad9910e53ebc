"""Attention on pixels and its agreement with masks, against loops over pixels and hand-made cases."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from focusvit.model.cost import example_inputs
from focusvit.model.model import FocusViT
from focusvit.model.presets import focusvit_64px
from focusvit.predict.attention import last_read
from tests.benchmarks.model.attended import (
    best_regions,
    density,
    mass_inside,
    overlap_at_area,
    patch_map,
    pointing,
    token_attention,
)
from tests.benchmarks.model.controls import control

rng = np.random.default_rng(5)
SMALL = focusvit_64px(width=48, depth=5, heads=2, tokens=12, num_classes=4, readout="cls")
MODELS = {
    "full": SMALL,
    "hybrid": replace(SMALL, trunk="hybrid", num_latents=5),
    "plain": control("full_grid", SMALL),
    "grid": control("uniform_grid", SMALL),
}


@pytest.mark.parametrize("name", MODELS)
def test_attention_is_the_class_tokens_row_and_sums_to_one(name: str) -> None:
    config = MODELS[name]
    model = FocusViT(config).eval()
    images, maps = example_inputs(config, 2)
    with torch.inference_mode():
        seen = model.forward_intermediates(images, maps)
    weights = token_attention(model, seen)
    assert weights.shape == (2, config.tokens or config.num_patches)
    assert weights.sum(1) == pytest.approx(1)
    source = seen["reads"][-1] if name == "hybrid" else seen["attention"][-1][..., 1:]
    heads = sum(source[:, head, 0] for head in range(2)) / 2
    assert weights == pytest.approx((heads / heads.sum(1, keepdim=True)).numpy(), abs=1e-6)


def test_latents_are_read_only_where_they_are() -> None:
    config = MODELS["hybrid"]
    model, (images, maps) = FocusViT(config).eval(), example_inputs(config, 1)
    seen = model.forward_intermediates(images, maps)
    read = last_read(seen)
    assert read is not None
    assert read == pytest.approx(sum(seen["reads"][-1][:, head] for head in range(2)).detach().numpy() / 2, abs=1e-6)
    assert last_read(FocusViT(MODELS["full"]).eval().forward_intermediates(images, maps)) is None
    means = FocusViT(replace(SMALL, readout="mean")).eval()
    with pytest.raises(ValueError, match="no class token"):
        token_attention(means, means.forward_intermediates(images, maps))


def test_density_gives_every_region_its_weight() -> None:
    maps = rng.integers(0, 6, (2, 9, 7))
    weights = rng.random((2, 6))
    weights /= weights.sum(1, keepdims=True)
    spread = density(weights, maps)
    for image in range(2):
        present = set(maps[image].ravel())
        total = sum(weights[image, region] for region in present)
        for region in present:
            at = maps[image] == region
            assert spread[image][at].sum() == pytest.approx(weights[image, region] / total)
            assert np.ptp(spread[image][at]) < 1e-12


def test_patches_are_squares_in_raster_order() -> None:
    expected = [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    assert patch_map((2, 2), (4, 4)).tolist() == expected


def test_uniform_attention_scores_chance_and_exact_attention_scores_one() -> None:
    mask = np.zeros((10, 12), bool)
    mask[2:5, 3:9] = True
    chance = mask.mean()
    uniform = np.full(mask.shape, 1 / mask.size)
    assert pointing(uniform, mask) == pytest.approx(chance)
    assert mass_inside(uniform, mask) == pytest.approx(chance)
    assert overlap_at_area(uniform, mask) == pytest.approx(chance / (2 - chance))
    exact = mask / mask.sum()
    assert pointing(exact, mask) == mass_inside(exact, mask) == overlap_at_area(exact, mask) == 1
    outside = ~mask / (~mask).sum()
    assert pointing(outside, mask) == mass_inside(outside, mask) == overlap_at_area(outside, mask) == 0


def test_overlap_equals_sorting_when_no_two_pixels_are_equal() -> None:
    values, mask = rng.permutation(80).reshape(8, 10) + 1.0, rng.random((8, 10)) < 0.3
    chosen = np.zeros(80, bool)
    chosen[np.argsort(-values.ravel())[: mask.sum()]] = True
    chosen = chosen.reshape(8, 10)
    assert overlap_at_area(values, mask) == pytest.approx((chosen & mask).sum() / (chosen | mask).sum())


def test_no_attention_over_regions_beats_the_observer_who_knows_the_mask() -> None:
    region_map, mask = rng.integers(0, 8, (12, 12)), rng.random((12, 12)) < 0.25
    best = overlap_at_area(best_regions(region_map, mask), mask)
    for _ in range(50):
        assert overlap_at_area(density(rng.random((1, 8)), region_map[None])[0], mask) <= best + 1e-12
