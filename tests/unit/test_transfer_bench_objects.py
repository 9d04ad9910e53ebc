"""Attention beside masks: the regions that are painted are those the model pooled, and scenes are what they say."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from focusvit.model import FocusViT
from focusvit.regions import overlap_matrix
from transfer.bench_objects import agreement, look, models, region_maps, table
from transfer.object_scenes import SIDE, drawn_scenes


@pytest.fixture(scope="module")
def scenes():  # type: ignore[no-untyped-def]
    return drawn_scenes(1, 1)


def test_scenes_are_whole_and_training_never_sees_them(scenes) -> None:  # type: ignore[no-untyped-def]
    assert scenes.images.shape == (8, SIDE, SIDE, 3) and scenes.class_ids.tolist() == list(range(8))
    assert all(0 < mask.mean() < 0.5 for mask in scenes.masks)
    other = drawn_scenes(1, 0)
    assert not any(np.array_equal(a, b) for a in scenes.images for b in other.images)
    assert np.array_equal(scenes.images, drawn_scenes(1, 1).images)


@pytest.mark.parametrize("title", models())
def test_painted_regions_are_the_pooled_ones(title: str, scenes) -> None:  # type: ignore[no-untyped-def]
    config = replace(models()[title], num_classes=8, depth=5)
    data = scenes.data(config.tokens if config.needs_maps else None, "shown")
    model = FocusViT(config).eval()
    regions = region_maps(config, data)
    weights = look(model, data, "class")
    assert weights.shape == (8, config.tokens or config.num_patches) == (8, regions.max() + 1)
    if config.tokens is not None:
        with torch.inference_mode():
            pooled = model.forward_intermediates(data.images, data.maps)["overlap"]
        painted = overlap_matrix(torch.from_numpy(regions.copy()), config.grid, config.tokens)
        torch.testing.assert_close(painted[: len(pooled)], pooled)


def test_the_table_counts_chance_and_spread(scenes) -> None:  # type: ignore[no-untyped-def]
    cells = np.broadcast_to(np.arange(SIDE * SIDE).reshape(SIDE, SIDE), scenes.masks.shape)
    exact = agreement(scenes.masks.reshape(8, -1).astype(float), cells, scenes.masks)
    assert exact == pytest.approx({"pointing": 1, "mass": 1, "overlap": 1, "best": 1})
    alike = agreement(np.ones((8, SIDE * SIDE)), cells, scenes.masks)
    made = table("t", {"m": [exact, {**exact, "pointing": 0.5}]}, scenes.masks, "")
    assert made.rows[0][2] == f"{alike['pointing']:.1%}" and made.rows[0][4] == f"{alike['overlap']:.1%}"
    assert made.rows[1][2].startswith("75.0% (")
