"""Intervals cover what they say, against scipy and by simulation."""

import numpy as np
import pytest
from scipy import stats

from focusvit.score import intervals


def test_wilson_solves_its_equation():
    """Its ends are the shares p from which the measured share is 1.96 standard deviations of p away."""
    for right, total in [(3, 10), (501, 1000), (1, 2), (24_999, 50_000)]:
        for end in intervals.wilson(right, total):
            assert abs(right / total - end) == pytest.approx(1.959964 * (end * (1 - end) / total) ** 0.5, rel=1e-6)
    assert intervals.wilson(0, 10)[0] == 0 and intervals.wilson(10, 10)[1] == 1
    with pytest.raises(ValueError, match="at least one"):
        intervals.wilson(0, 0)


def test_over_draws_equals_scipy_for_the_numbers_of_draws_in_use():
    values = np.random.default_rng(0).normal(0.5, 0.1, 14)
    for count in (2, 3, 5, 11, 14):
        some = values[:count]
        expected = np.clip(stats.t.interval(0.95, count - 1, some.mean(), stats.sem(some)), 0, 1)
        assert intervals.over_draws(some) == pytest.approx(tuple(expected), abs=1e-9)
        points = 100 * (some - 0.6)  # differences are no shares: their interval may end anywhere
        expected = stats.t.interval(0.95, count - 1, points.mean(), stats.sem(points))
        assert intervals.of_mean(points) == pytest.approx(tuple(expected), abs=1e-9)
    low, high = intervals.over_draws([0.4])
    assert (low, high) == (0.0, 1.0) and intervals.of_mean([0.4]) == (-np.inf, np.inf)


def test_bootstrap_of_a_share_agrees_with_wilson():
    right = np.random.default_rng(1).random(2000) < 0.7
    low, high = intervals.bootstrap(lambda rows: float(right[rows].mean()), len(right))
    assert (low, high) == pytest.approx(intervals.wilson(right.sum(), len(right)), abs=0.004)
    again = intervals.bootstrap(lambda rows: float(right[rows].mean()), len(right))
    assert again == (low, high)
    with pytest.raises(ValueError, match="undefined"):
        intervals.bootstrap(lambda rows: float("nan"), 5, draws=10)
