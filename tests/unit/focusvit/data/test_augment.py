"""Views: image and map move together, views are keyed, and one transform's choice says nothing about another's."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from focusvit.data.augment import TrainViews, centre_box, eval_view
from focusvit.data.config import DataConfig
from pipeline.superpixels.segment import SuperpixelConfig, Superpixels, segment_image


def two_halves(height: int = 60, width: int = 80) -> tuple[np.ndarray, Superpixels]:
    """Left black, right white, and a map of half the size that says so."""
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[:, width // 2 :] = 255
    regions = np.zeros((height // 2, width // 2), np.uint8)
    regions[:, width // 4 :] = 1
    return rgb, Superpixels(regions, np.array([[0, 1]], np.uint8))


def test_image_and_map_move_together() -> None:
    rgb, superpixels = two_halves()
    views = TrainViews(DataConfig(image_px=40, map_px=40, crop_scale=(0.3, 1.0)))
    checked = 0
    for key in range(60):
        view = views(rgb, superpixels, 2, (0, 0, key))
        bright = view.image[:, :, 0] > 127
        if bright.all() or not bright.any():
            continue  # the crop shows one half only; two regions were made by a split
        checked += 1
        assert view.map is not None
        white = view.map[np.argmax(bright) // 40, np.argmax(bright) % 40]
        assert ((view.map == white) == bright).mean() > 0.95  # one column may differ by rounding
    assert checked > 20


@pytest.mark.parametrize("colour", ["none", "3-augment", "randaugment"])
def test_the_view_depends_on_the_key_alone(colour: Any) -> None:
    """Whatever was made before, in whatever order: one loader worker or many, this run or a resumed one."""
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 255, (50, 70, 3)).astype(np.uint8)
    superpixels = segment_image(rgb, SuperpixelConfig(fine_regions=32))
    settings: dict[str, Any] = {"colour": colour, "colour_jitter": 0.3, "erase": 0.5, "image_px": 32, "map_px": 32}
    first, second = TrainViews(DataConfig(**settings)), TrainViews(DataConfig(**settings))
    expected = {key: first(rgb, superpixels, 9, (1, 2, key)) for key in range(6)}
    for key in (5, 1, 3, 0, 5):
        view = second(rgb, superpixels, 9, (1, 2, key))
        assert np.array_equal(view.image, expected[key].image) and np.array_equal(view.map, expected[key].map)
        assert view.draw == expected[key].draw
    images = [view.image.tobytes() for view in expected.values()]
    assert len(set(images)) == len({view.draw for view in expected.values()}) == len(images)


def test_the_flip_is_independent_of_the_crop() -> None:
    """With one seed for every transform (albumentations' own way), the same draw would decide both."""
    views = TrainViews(DataConfig(image_px=16, map_px=16, crop_scale=(0.1, 1.0)))
    rgb = np.zeros((64, 64, 3), np.uint8)
    areas, flips = [], []
    for key in range(400):
        _, (y0, x0, y1, x1), flipped = views._cropped(rgb, (0, 0, key))
        areas.append((x1 - x0) * (y1 - y0))
        flips.append(flipped)
    assert 0.4 < np.mean(flips) < 0.6
    assert abs(np.corrcoef(areas, flips)[0, 1]) < 0.15


@pytest.mark.parametrize(("height", "width"), [(60, 80), (80, 60), (64, 64), (1, 7)])
def test_the_centre_box_is_a_square_in_the_middle(height: int, width: int) -> None:
    y0, x0, y1, x1 = centre_box(height, width, 0.875)
    assert round((y1 - y0) * height) == round((x1 - x0) * width) == max(1, round(min(height, width) * 0.875))
    assert abs((y0 + y1) / 2 - 0.5) <= 0.51 / height and abs((x0 + x1) / 2 - 0.5) <= 0.51 / width


def test_the_evaluation_view_of_a_square_of_the_right_size_is_the_image() -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.uint8)
    view = eval_view(rgb, None, None, image_px=32, map_px=32, crop_fraction=1.0)
    assert np.array_equal(view.image, rgb) and view.map is None


def test_a_pil_image_gives_the_views_of_its_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    image = Image.fromarray(pixels)
    sizes = {"image_px": 32, "map_px": 16}
    assert (eval_view(image, None, None, **sizes).image == eval_view(pixels, None, None, **sizes).image).all()
    train = TrainViews(DataConfig(**sizes))
    assert (train(image, None, None, (1, 2)).image == train(pixels, None, None, (1, 2)).image).all()
    with pytest.raises(ValueError, match=r"uint8 .* or a PIL image, not str"):
        eval_view("photo.jpg", None, None, **sizes)
