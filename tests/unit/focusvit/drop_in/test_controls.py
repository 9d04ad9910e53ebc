"""Token merging and the uniform grid as ways to pool: against loops over tokens."""

import pytest
import torch

from focusvit.drop_in.controls import bipartite, merging_levels, uniform
from focusvit.model.partitions import grid_cells

KEYS = torch.randn(2, 16, 5, generator=torch.Generator().manual_seed(0))


def test_token_merging_equals_a_loop():
    first = bipartite(KEYS, None, (4, 4), 11)
    for image in range(2):
        unit = torch.nn.functional.normalize(KEYS[image], dim=1)
        edges = []
        for giver in range(0, 16, 2):
            likeness = [float(unit[giver] @ unit[taker]) for taker in range(1, 16, 2)]
            taker = max(range(8), key=likeness.__getitem__)
            edges.append((likeness[taker], giver, 2 * taker + 1))
        groups = {token: {token} for token in range(16)}
        for _, giver, taker in sorted(edges, reverse=True)[:5]:
            groups[taker] |= groups.pop(giver)
        found = [set(row.nonzero().flatten().tolist()) for row in first.overlap[image]]
        assert sorted(map(sorted, found)) == sorted(map(sorted, groups.values()))
    torch.testing.assert_close(first.weights.sum(2), torch.ones(2, 11))
    second = bipartite(first.weights @ KEYS, first, (4, 4), 6)  # sizes count in the second mean
    x = torch.cat([torch.zeros(2, 1, 5), KEYS], 1)
    means = second.overlap @ KEYS / second.area[..., None]
    torch.testing.assert_close(second.pool(first.pool(x))[:, 1:], means)
    with pytest.raises(ValueError, match="at most half of 16"):
        bipartite(KEYS, None, (4, 4), 7)


def test_merging_takes_the_same_number_before_every_block():
    assert merging_levels(16, 4, 4) == {0: 13, 1: 10, 2: 7, 3: 4}
    assert merging_levels(16, 14, 4) == {1: 15, 3: 14}


def test_grid_cells_are_means_of_whole_patches():
    cells = torch.from_numpy(grid_cells(6, 4, 4)).flatten()
    level = uniform(KEYS, None, (4, 4), 6)
    for cell in range(6):
        torch.testing.assert_close((level.weights @ KEYS)[:, cell], KEYS[:, cells == cell].mean(1))
    assert torch.equal(level.overlap.sum(1), torch.ones(2, 16))
