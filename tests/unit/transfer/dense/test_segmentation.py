"""Scores from region tables equal those of painted pictures, counted pixel by pixel."""

import itertools
import math

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, jaccard_score

from transfer.dense import boundary, segmentation

REGIONS, CLASSES = 12, 4


@pytest.fixture
def image():
    rng = np.random.default_rng(3)
    region_map = np.kron(rng.permutation(REGIONS).reshape(3, 4), np.ones((7, 6), int))
    label_map = rng.integers(0, CLASSES, region_map.shape).astype(np.uint8)
    label_map[:10, :9] = 2
    label_map[-4:, -5:] = segmentation.IGNORE
    return region_map, label_map


def test_histograms_equal_a_loop(image):
    region_map, label_map = image
    expected = np.zeros((REGIONS, CLASSES), int)
    for region, label in zip(region_map.ravel(), label_map.ravel()):
        if label < CLASSES:
            expected[region, label] += 1
    assert (segmentation.region_histograms(region_map, label_map, REGIONS, CLASSES) == expected).all()


def test_scores_of_region_labels_equal_scikit_learn_on_the_painted_picture(image):
    region_map, label_map = image
    histograms = segmentation.region_histograms(region_map, label_map, REGIONS, CLASSES)
    predicted = np.random.default_rng(0).integers(0, CLASSES, REGIONS)
    painted, counted = predicted[region_map], label_map < CLASSES
    truth, answer = label_map[counted], painted[counted]
    counts = segmentation.confusion_of(histograms, predicted)
    assert (counts == confusion_matrix(truth, answer, labels=range(CLASSES))).all()
    expected = jaccard_score(truth, answer, labels=range(CLASSES), average=None)
    np.testing.assert_allclose(segmentation.intersection_over_union(counts), expected)
    assert segmentation.mean_iou(counts) == pytest.approx(expected.mean())
    assert segmentation.pixel_accuracy(counts) == pytest.approx((truth == answer).mean())


def test_the_oracle_is_what_brute_force_finds_and_no_labelling_beats_it(image):
    region_map, label_map = image
    histograms = segmentation.region_histograms(region_map, label_map, REGIONS, CLASSES)
    best = segmentation.best_labels(histograms)
    for region in range(REGIONS):
        inside = label_map[(region_map == region) & (label_map < CLASSES)]
        assert (inside == best[region]).sum() == max((inside == c).sum() for c in range(CLASSES))
    top = segmentation.pixel_accuracy(segmentation.confusion_of(histograms, best))
    small = histograms[:4]
    every = itertools.product(range(CLASSES), repeat=4)
    most = max(np.trace(segmentation.confusion_of(small, np.array(labels))) for labels in every)
    assert np.trace(segmentation.confusion_of(small, best[:4])) == most and 0 < top < 1


@pytest.mark.parametrize(("height", "width", "num", "shape"), [(224, 224, 64, (8, 8)), (360, 480, 100, (9, 12))])
def test_the_grid_has_at_least_as_many_cells_and_is_square(height, width, num, shape):
    assert segmentation.grid_shape(height, width, num) == shape
    cells = segmentation.grid_map(height, width, num)
    assert cells.shape == (height, width) and len(np.unique(cells)) == shape[0] * shape[1] >= num
    sizes = np.bincount(cells.ravel())
    assert sizes.max() / sizes.min() < 1.3


@pytest.mark.parametrize("num", [7, 37, 101, 196])
def test_the_grid_never_has_fewer_cells_nor_many_more(num):
    rows, columns = segmentation.grid_shape(360, 480, num)
    assert num <= rows * columns <= max(num * 1.1, num + 3)


def test_classes_without_truth_do_not_count_and_chance_is_the_best_constant():
    counts = np.array([[6, 2, 0], [0, 0, 0], [1, 0, 1]])
    assert segmentation.mean_iou(counts) == pytest.approx((6 / 9 + 1 / 2) / 2)
    constant = np.array([[8, 0, 0], [0, 0, 0], [2, 0, 0]])
    assert segmentation.constant_mean_iou(counts) == pytest.approx(segmentation.mean_iou(constant))
    assert math.isnan(segmentation.mean_iou(np.zeros((2, 2), int)))


def slow_boundary_f1(predicted, truth, num_classes):
    """Every border pixel against every other, one by one."""

    def borders(labels):
        found = []
        for y, x in np.ndindex(labels.shape):
            for v, u in ((y, x + 1), (y + 1, x)):
                if v < labels.shape[0] and u < labels.shape[1] and labels[y, x] != labels[v, u]:
                    if truth[y, x] < num_classes and truth[v, u] < num_classes:
                        found.append((y, x))
                        break
        return found

    mine, true = borders(predicted), borders(truth)
    reach = 0.0075 * math.hypot(*truth.shape)

    def near(points, others):
        return np.mean([min(math.dist(p, q) for q in others) <= reach for p in points])

    precision, recall = near(mine, true), near(true, mine)
    return 2 * precision * recall / (precision + recall)


def test_boundary_f1_equals_brute_force():
    truth = np.zeros((60, 150), np.uint8)
    truth[20:50, 30:90] = 1
    truth[40:, 100:] = 2
    truth[:8] = segmentation.IGNORE
    predicted = np.roll(np.where(truth == segmentation.IGNORE, 0, truth), (1, 2), (0, 1))
    expected = slow_boundary_f1(predicted, truth, 3)
    assert boundary.boundary_f1(predicted, truth, 3) == pytest.approx(expected, abs=1e-3) and 0.1 < expected < 0.99
    assert boundary.boundary_f1(truth, truth, 3) == 1.0
    assert boundary.boundary_f1(np.zeros_like(truth), truth, 3) == 0.0
    assert math.isnan(boundary.boundary_f1(truth * 0, truth * 0, 3))
