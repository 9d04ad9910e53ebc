"""Attention beside masks: the regions that are painted are those the model pooled, and scenes are what they say."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from focusvit.model.model import FocusViT
from focusvit.model.regions import overlap_matrix
from pipeline.errors import DataError
from tests.benchmarks.transfer.object_scenes import (
    CAMVID_OBJECTS,
    SHAPES,
    SIDE,
    camvid_scenes,
    draw_cluttered,
    drawn_scenes,
    windows,
)
from tests.benchmarks.transfer.object_tables import ReaderFigures, agreement, differences, figures, picture, references
from tests.benchmarks.transfer.objects import chosen_by_mask, look, models, region_maps
from tests.testkit.tiny_shards import make_dataset

rng = np.random.default_rng(3)


@pytest.fixture(scope="module")
def scenes():  # type: ignore[no-untyped-def]
    return drawn_scenes(2, 1)


def test_clutter_tells_nothing_of_the_class():
    """The same draws with two classes differ on the objects only, but for the sensor's grain."""
    for number in range(6):
        (first, one), (second, other) = (
            draw_cluttered(np.random.default_rng(number), class_id, 96) for class_id in (0, 1)
        )
        outside = cv2.dilate(one | other, np.ones((9, 9), np.uint8)) == 0
        gap = np.abs(first.astype(int) - second)
        assert outside.mean() > 0.2 and gap[outside].max() < 0.02 * 255 * 8
        assert gap[(one | other) == 1].max() > 60
        assert not one[[0, -1]].any() and not one[:, [0, -1]].any()


def test_scenes_are_whole_and_training_never_sees_them(scenes) -> None:  # type: ignore[no-untyped-def]
    assert scenes.images.shape == (8, SIDE, SIDE, 3) and scenes.class_ids.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert len(SHAPES) == 4 and all(0 < mask.mean() < 0.5 for mask in scenes.masks)
    other = drawn_scenes(2, 0)
    assert not any(np.array_equal(a, b) for a in scenes.images for b in other.images)
    assert np.array_equal(scenes.images, drawn_scenes(2, 1).images)


def test_a_window_holds_its_own_object_and_none_of_the_others() -> None:
    """Frames whose colour is their label: so the image tells what the mask should be."""
    frames = []
    for _ in range(6):
        labels = np.zeros((200, 260), np.uint8)
        for place, label in enumerate((6, 8, 9, 10)):
            y, x = rng.integers(0, 120), rng.integers(0, 20)
            labels[y : y + 40, 60 * place + x : 60 * place + x + 40] = label
        frames.append((np.repeat(labels[..., None] * np.uint8(20), 3, 2), labels))
    found = windows(frames, 6, "a test")
    assert found.class_ids.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    own = [np.isin(np.round(image[..., 0] / 20), ids) for ids in CAMVID_OBJECTS.values() for image in found.images]
    own = [own[18 * class_id + i] for i, class_id in enumerate(found.class_ids)]
    for image, mask, class_id, expected in zip(found.images, found.masks, found.class_ids, own):
        assert 0.08 <= mask.mean() <= 0.52
        assert (mask == expected).mean() > 0.9  # borders are blended by the resizing, and the mask is not
        others = [ids for kind, ids in enumerate(CAMVID_OBJECTS.values()) if kind != class_id]
        assert np.isin(image[..., 0], [20 * label for ids in others for label in ids]).mean() < 0.05


def test_data_without_the_objects_is_an_error_that_names_them(tmp_path) -> None:  # type: ignore[no-untyped-def]
    uri = make_dataset(tmp_path, splits={"train": 6}, dense=True)
    with pytest.raises(DataError, match="'sign'") as error:
        camvid_scenes(uri, "train", 1)
    assert uri in str(error.value) and "'train'" in str(error.value)


@pytest.mark.parametrize("title", models())
def test_painted_regions_are_the_pooled_ones(title: str, scenes) -> None:  # type: ignore[no-untyped-def]
    config = replace(models()[title], num_classes=4, depth=5)
    data = scenes.data(config.tokens if config.needs_maps else None, "shown")
    model = FocusViT(config).eval()
    regions = region_maps(config, data)
    weights, latents = look(model, data)
    assert weights.shape == (8, config.tokens or config.num_patches) == (8, regions.max() + 1)
    assert (latents is not None) == config.has_latents
    if config.tokens is not None:
        with torch.inference_mode():
            pooled = model.forward_intermediates(data.images, data.maps)["overlap"]
        painted = overlap_matrix(torch.from_numpy(regions.copy()), config.grid, config.tokens)
        torch.testing.assert_close(painted[: len(pooled)], pooled)


def test_the_mask_chooses_the_latent_that_is_most_on_the_object() -> None:
    regions, masks = rng.integers(0, 5, (4, SIDE, SIDE)), rng.random((4, SIDE, SIDE)) < 0.3
    latents = rng.dirichlet(np.ones(5), (4, 3))
    chosen = chosen_by_mask(latents, regions, masks)
    for image in range(4):
        each = [agreement(w[None], regions[image, None], masks[image, None])["mass"] for w in latents[image]]
        assert np.array_equal(chosen[image], latents[image, int(np.argmax(each))])


def test_the_most_attended_token_needs_no_area_and_the_pixel_does() -> None:
    regions = np.zeros((1, SIDE, SIDE), np.int64)
    regions[0, 0, :2] = 1  # two pixels, of which one is the object
    masks = np.zeros((1, SIDE, SIDE), bool)
    masks[0, 0, 1:] = True
    found = agreement(np.array([[0.6, 0.4]]), regions, masks)
    assert found["token"] == pytest.approx((SIDE - 2) / (SIDE**2 - 2)) and found["pixel"] == 0.5
    assert found["mass"] == pytest.approx(0.6 * (SIDE - 2) / (SIDE**2 - 2) + 0.2)
    alike = agreement(np.ones((1, 2)), regions, masks)
    assert alike["token"] == pytest.approx(masks.mean())  # chance of the pointing game


def test_tables_count_chance_spread_and_differences_by_seed(tmp_path, scenes) -> None:  # type: ignore[no-untyped-def]
    cells = np.broadcast_to(np.arange(SIDE * SIDE).reshape(SIDE, SIDE), scenes.masks.shape)
    weights = scenes.masks.reshape(8, -1).astype(float)
    exact = agreement(weights, cells, scenes.masks)
    assert exact == pytest.approx({"token": 1, "pixel": 1, "mass": 1, "overlap": 1, "best": 1})
    chance = references(scenes.masks)["uniform attention (chance)"]
    assert chance["token"] == chance["mass"] == pytest.approx(scenes.masks.mean())
    rows = []
    for title, drop in (("first", 0.0), ("second", 0.25)):
        row = ReaderFigures(title=title, regions=cells, weights=weights, alike=chance)
        row.trained = [{"top1": 0.5, **exact, "mass": 1 - drop}, {"top1": 0.5, **exact, "mass": 0.8 - drop}]
        row.untrained = [{**chance, "mass": 0.2}] * 2
        rows.append(row)
    made = figures("t", rows, scenes.masks, "note.")
    assert [line[0] for line in made.rows[2:]] == [
        name + end for name in ("first", "second") for end in ("", "; untrained", "; no model, tokens alike")
    ]
    # Student's t of 1.0 and 0.8: mean 0.9, standard error 0.1, 12.706 of them on one degree of freedom.
    assert made.rows[2][4] == "90.0% (0.0 .. 100.0)" and made.rows[2][1].startswith("50.0% (")
    gains = differences("t", rows).rows
    assert gains[0][3].startswith("+70.0 (") and gains[0][-2:] == ["-", "-"]
    assert gains[1][5] == "-25.0 (-25.0 .. -25.0)"  # paired: both seeds lose as much
    picture(tmp_path / "sheet.jpg", [replace(row, regions=np.array(cells)) for row in rows], scenes)
    assert (tmp_path / "sheet.jpg").stat().st_size > 10_000
