"""How far a measured number can be trusted: three 95 % intervals and when each applies."""

from collections.abc import Callable

import numpy as np


def wilson(num_right: int, num_samples: int) -> tuple[float, float]:
    """95 % interval of a share of independent right answers (Wilson 1927). For one fixed model on one test set.

    Unlike the normal interval it never leaves [0, 1] and is not empty at 0 % or 100 %. ValueError without samples.
    """
    if num_samples < 1:
        raise ValueError("an interval needs at least one sample")
    from scipy.stats import binomtest  # here: its import takes longer than most verbs need

    low, high = binomtest(num_right, num_samples).proportion_ci(0.95, method="wilson")
    return float(low), float(high)


def of_mean(values: np.ndarray | list[float]) -> tuple[float, float]:
    """95 % interval of the mean of a few independent numbers of any size, for example differences (Student's t).

    One number says nothing about spread: the interval is then all numbers.
    """
    numbers = np.asarray(values, np.float64)
    if len(numbers) < 2:
        return -np.inf, np.inf
    from scipy.special import stdtrit  # here: only tables of repeats need it

    half = stdtrit(len(numbers) - 1, 0.975) * numbers.std(ddof=1) / np.sqrt(len(numbers))
    return float(numbers.mean() - half), float(numbers.mean() + half)


def over_draws(values: np.ndarray | list[float]) -> tuple[float, float]:
    """`of_mean` of shares from a few independent repeats. For protocols with random draws.

    It ends where shares end: t knows no bounds, two draws of 60 % and 90 % would give up to 265 %.
    """
    low, high = of_mean(values)
    return max(0.0, low), min(1.0, high)


def bootstrap(
    statistic: Callable[[np.ndarray], float], num_samples: int, *, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of `statistic(indices)` when the test samples are drawn again with replacement.

    For metrics that are not a plain share (mean per class, mAP, mIoU). `statistic` gets int64 (num_samples,) indices.
    Draws for which it returns nan (a class drew no sample) are left out. ValueError when none is left.
    """
    rng = np.random.default_rng(seed)
    values = np.array([statistic(rng.integers(0, num_samples, num_samples)) for _ in range(draws)])
    values = values[~np.isnan(values)]
    if not len(values):
        raise ValueError("the statistic was undefined in every bootstrap draw")
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
