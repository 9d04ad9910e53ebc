"""Area resizing equals the slow integral over output pixels, and OpenCV's, to one level."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.image.resize import reduce_area


def slow_area(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Repeat pixels to a common multiple, then plain means."""
    large = np.repeat(np.repeat(image.astype(float), height, axis=0), width, axis=1)
    return large.reshape(height, image.shape[0], width, image.shape[1], 3).mean((1, 3))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 24), st.integers(1, 24), st.data())
def test_equals_the_slow_mean(rows: int, columns: int, data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, rows)), data.draw(st.integers(1, columns))
    image = np.random.default_rng(rows * 100 + columns).integers(0, 256, (rows, columns, 3), np.uint8)
    assert np.abs(reduce_area(image, height, width) - slow_area(image, height, width)).max() <= 1


@pytest.mark.parametrize("size", [(256, 341), (300, 400), (375, 500), (94, 125), (93, 124), (20, 20), (1, 1)])
def test_equals_opencv_to_one_level(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (375, 500, 3), np.uint8)
    expected = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(reduce_area(image, *size).astype(int) - expected).max() <= 1


def test_one_colour_stays_itself_and_views_are_fine() -> None:
    for level in (0, 1, 254, 255):
        assert (reduce_area(np.full((37, 53, 3), level, np.uint8), 19, 31) == level).all()
    image = np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)
    assert np.array_equal(reduce_area(image[..., ::-1], 30, 50), reduce_area(image, 30, 50)[..., ::-1])


def test_enlarging_and_other_arrays_are_refused() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    for size in ((9, 8), (8, 9), (0, 4)):
        with pytest.raises(ValueError, match="cannot reduce"):
            reduce_area(image, *size)
    with pytest.raises(ValueError, match="uint8"):
        reduce_area(np.zeros((8, 8)), 4, 4)
