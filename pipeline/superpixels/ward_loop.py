"""Ward's merging as a compiled loop over one image, for the CPU: there the steps in torch cost more than the work."""

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def merge_regions(mean: np.ndarray, area: np.ndarray, near: np.ndarray, budgets: np.ndarray) -> np.ndarray:
    """Labels int64 (len(budgets), R) of one image, by the rule of `focusvit.model.merging.ward`, ties included.

    mean (R, F) and area (R,) float32, near (R, R) bool, symmetric: all written over. budgets int64, falling. Every
    region remembers its cheapest neighbour, so a step looks at R numbers and at the neighbours of the two that merge.
    Raises ValueError when the regions left do not touch each other.
    """
    count = mean.shape[0]
    cost = np.full((count, count), np.inf, np.float32)
    best, partner = np.full(count, np.inf, np.float32), np.zeros(count, np.int64)
    for one in range(count):
        for other in range(one):
            if near[one, other]:
                cost[one, other] = cost[other, one] = _cost(mean, area, one, other)
    for one in range(count):
        _choose(cost, one, best, partner)
    label, alive = np.arange(count), np.ones(count, np.int64)
    found = np.empty((budgets.shape[0], count), np.int64)
    left = count
    for level in range(budgets.shape[0]):
        while left > budgets[level]:
            lowest = np.argmin(best)
            if best[lowest] == np.inf:
                raise ValueError("the regions left do not touch each other, so they cannot merge")
            kept, gone = min(lowest, partner[lowest]), max(lowest, partner[lowest])
            _join(mean, area, near, cost, kept, gone)
            alive[gone], best[gone] = 0, np.inf
            _choose(cost, kept, best, partner)
            for other in range(count):
                if label[other] == gone:
                    label[other] = kept
                fresh = cost[kept, other]
                if other == kept or not alive[other]:
                    continue
                if partner[other] == kept or partner[other] == gone:
                    _choose(cost, other, best, partner)
                elif fresh < best[other] or (fresh == best[other] and kept < partner[other]):
                    best[other], partner[other] = fresh, kept
            left -= 1
        dense = np.cumsum(alive) - 1
        for region in range(count):
            found[level, region] = dense[label[region]]
    return found


@numba.njit(cache=True, nogil=True)
def _choose(cost: np.ndarray, one: int, best: np.ndarray, partner: np.ndarray) -> None:
    """The cheapest neighbour of a region, ties to the smaller id."""
    partner[one] = np.argmin(cost[one])
    best[one] = cost[one, partner[one]]


@numba.njit(cache=True, nogil=True)
def _join(mean: np.ndarray, area: np.ndarray, near: np.ndarray, cost: np.ndarray, kept: int, gone: int) -> None:
    both = area[kept] + area[gone]
    share = area[gone] / both
    for column in range(mean.shape[1]):
        mean[kept, column] = mean[kept, column] * (np.float32(1) - share) + mean[gone, column] * share
    area[kept] = both
    for other in range(near.shape[0]):
        touches = (near[kept, other] or near[gone, other]) and other != kept and other != gone
        near[kept, other] = near[other, kept] = touches
        near[gone, other] = near[other, gone] = False
        cost[gone, other] = cost[other, gone] = np.inf
        cost[kept, other] = cost[other, kept] = np.inf
    for other in range(near.shape[0]):
        if near[kept, other]:
            cost[kept, other] = cost[other, kept] = _cost(mean, area, kept, other)


@numba.njit(cache=True, nogil=True)
def _cost(mean: np.ndarray, area: np.ndarray, one: int, other: int) -> float:
    total = np.float32(0)
    for column in range(mean.shape[1]):
        difference = mean[other, column] - mean[one, column]
        total += difference * difference
    return area[one] * area[other] / (area[one] + area[other]) * total
