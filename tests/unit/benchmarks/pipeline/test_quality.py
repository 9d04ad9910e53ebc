"""The figures of superpixel quality equal their definitions, written out pixel by pixel."""

import numpy as np
import pytest

from tests.benchmarks.pipeline.quality import boundaries, explained_variation, measure, overlap_figures


def _pair(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = (9, 11)
    return rng.integers(0, 7, shape), rng.integers(0, 3, shape), rng.integers(0, 256, (*shape, 3), np.uint8)


@pytest.mark.parametrize("seed", range(4))
def test_overlap_figures_equal_their_definitions(seed: int) -> None:
    found, truth, _ = _pair(seed)
    right, leak = 0, 0
    for s in np.unique(found):
        inside = [np.count_nonzero((found == s) & (truth == g)) for g in np.unique(truth)]
        right += max(inside)
        leak += sum(min(count, sum(inside) - count) for count in inside)
    assert overlap_figures(found, truth) == pytest.approx((right / truth.size, leak / truth.size))


@pytest.mark.parametrize("seed", range(4))
def test_explained_variation_equals_its_definition(seed: int) -> None:
    found, _, rgb = _pair(seed)
    colours = rgb.reshape(-1, 3).astype(float)
    means = np.array([colours[found.ravel() == s].mean(0) for s in found.ravel()])
    expected = ((means - colours.mean(0)) ** 2).sum() / ((colours - colours.mean(0)) ** 2).sum()
    assert explained_variation(found, rgb) == pytest.approx(expected)


def test_the_truth_itself_is_perfect_and_one_region_is_not() -> None:
    truth = np.kron(np.arange(6).reshape(2, 3), np.ones((20, 20), int))
    rgb = np.repeat(truth[..., None] * 40, 3, axis=2).astype(np.uint8)
    perfect, single = measure(truth, rgb, [truth, truth]), measure(np.zeros_like(truth), rgb, [truth])
    assert perfect.achievable_accuracy == perfect.boundary_recall == 1 and perfect.under_segmentation == 0
    assert perfect.explained_variation == pytest.approx(1)
    assert single.achievable_accuracy == pytest.approx(1 / 6) and single.boundary_recall == 0
    assert single.explained_variation == pytest.approx(0)


def test_a_boundary_two_pixels_away_is_found_and_three_away_is_not() -> None:
    truth = (np.arange(30) >= 15).astype(int) * np.ones((10, 1), int)
    rgb = np.zeros((10, 30, 3), np.uint8)
    for shift, recall in ((0, 1), (2, 1), (-2, 1), (3, 0)):
        moved = (np.arange(30) >= 15 + shift).astype(int) * np.ones((10, 1), int)
        assert measure(moved, rgb, [truth]).boundary_recall == recall


def test_boundaries_lie_left_of_and_above_a_change() -> None:
    assert boundaries(np.array([[0, 0, 1], [0, 0, 1], [2, 2, 2]])).tolist() == [
        [False, True, False],
        [True, True, True],
        [False, False, False],
    ]
