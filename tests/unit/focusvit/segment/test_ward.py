"""Merging on the device: the stored hierarchy's order, nested budgets, one image as in a batch."""

import cv2
import numpy as np
import pytest
import torch

from focusvit.model.merging import _ward, touching, ward
from focusvit.segment.slic import slic
from focusvit.segment.ward import slic_levels
from pipeline.superpixels.merge_order import ids_after, merge_order

GENERATOR = torch.Generator().manual_seed(0)


def _scene(side: int = 48) -> np.ndarray:
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (8, 8, 3), np.uint8)
    return cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)


def test_merges_are_those_of_the_stored_hierarchy():
    """The same regions, colours and weights give the same partition at every budget."""
    image = _scene()
    cells = (np.arange(48)[:, None] // 8 * 6 + np.arange(48) // 8).astype(np.int32)
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    merges = merge_order(cells, lab, 4.0)
    y, x = np.mgrid[:48, :48] * (4.0 / 8)
    values = np.stack([lab[..., 0] * (100 / 255), lab[..., 1], lab[..., 2], y, x], -1)
    means = np.stack([values[cells == region].mean(0) for region in range(36)])
    maps = torch.from_numpy(cells)[None].long()
    budgets = [20, 9, 2]
    found = ward(torch.from_numpy(means)[None], torch.full((1, 36), 64.0), touching(maps, 36), budgets)
    for budget, labels in zip(budgets, found):
        wanted = ids_after(merges, 36 - budget)
        pairs = set(zip(labels[0].tolist(), wanted.tolist()))
        assert len(pairs) == budget  # one id of theirs for each of ours


def test_budgets_nest_and_an_image_alone_is_the_image_in_a_batch():
    images = torch.rand(3, 3, 32, 48, generator=GENERATOR)
    fine, middle, coarse = slic_levels(images, (24, 10, 3))
    assert torch.equal(fine, slic(images, 24))
    for maps, count, before in ((middle, 10, fine), (coarse, 3, middle)):
        for image in range(3):
            assert maps[image].unique().tolist() == list(range(count))
            pairs = torch.stack([before[image].flatten(), maps[image].flatten()]).unique(dim=1)
            assert pairs.shape[1] == len(before[image].unique())  # each finer region lies in one coarser
    for number in range(3):
        alone = slic_levels(images[number : number + 1], (24, 10, 3))
        assert all(torch.equal(one[0], all_[number]) for one, all_ in zip(alone, (fine, middle, coarse)))


def test_the_loop_of_a_cpu_merges_as_the_steps_of_a_device():
    """On features that differ, on equal ones (every cost a tie), and on regions that are one already."""
    grid = torch.arange(63).view(1, 7, 9)
    near = touching(grid, 63).expand(3, -1, -1)
    features = torch.rand(3, 63, 5, generator=GENERATOR)
    features[1] = 1.0
    features[2] = (grid[0] % 9 // 3).flatten()[:, None]
    area = torch.randint(1, 9, (3, 63), generator=GENERATOR).float()
    budgets = [40, 17, 3, 1]
    for mine, steps in zip(ward(features, area, near, budgets), _ward(features, area, near, budgets), strict=True):
        assert torch.equal(mine, steps)


def test_regions_that_do_not_touch_are_named():
    with pytest.raises(ValueError, match="do not touch"):
        ward(torch.rand(1, 4, 2), torch.ones(1, 4), torch.zeros(1, 4, 4, dtype=torch.bool), [2])


def test_touching_equals_a_loop():
    maps = torch.randint(0, 7, (2, 5, 6), generator=GENERATOR)
    found = touching(maps, 7)
    for image in range(2):
        wanted = torch.zeros(7, 7, dtype=torch.bool)
        for y in range(5):
            for x in range(6):
                for other in ((y + 1, x), (y, x + 1)):
                    if other[0] < 5 and other[1] < 6:
                        a, b = int(maps[image, y, x]), int(maps[image, other[0], other[1]])
                        wanted[a, b] = wanted[b, a] = True
        assert torch.equal(found[image], wanted)


@pytest.mark.parametrize("budgets", [(), (5, 5), (3, 4), (0,), (9,)])
def test_budgets_that_do_not_fall_are_refused(budgets):
    with pytest.raises(ValueError, match="must fall"):
        ward(torch.rand(1, 8, 2), torch.ones(1, 8), torch.ones(1, 8, 8, dtype=torch.bool), budgets)
