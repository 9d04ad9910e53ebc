"""Token merging (the control) against a loop."""

import pytest
import torch
from torch import Tensor

from focusvit.model.merging import merge_most_similar, merge_schedule


def merge_loop(x: Tensor, size: Tensor, keys: Tensor, num_merged: int, first: int) -> list[tuple[Tensor, float]]:
    """The groups of one image, in no particular order."""
    keys = torch.nn.functional.normalize(keys, dim=-1)
    even, odd = list(range(first, len(x), 2)), list(range(first + 1, len(x), 2))
    links = []
    for i in even:
        scores = [float(keys[i] @ keys[j]) for j in odd]
        best = max(range(len(odd)), key=lambda j: scores[j])
        links.append((scores[best], i, odd[best]))
    links.sort(key=lambda link: -link[0])
    groups = {i: [i] for i in range(len(x))}
    for _, i, j in links[:num_merged]:
        groups[j] += groups.pop(i)
    merged = []
    for members in groups.values():
        total = sum(size[i] for i in members)
        merged.append((sum(x[i] * size[i] for i in members) / total, float(total)))
    return merged


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("num_merged", [0, 1, 4, 6])
def test_merging_equals_the_loop(num_merged: int, first: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 12 + first, 5, generator=generator)
    size = torch.randint(1, 4, (3, 12 + first, 1), generator=generator).float()
    keys = torch.randn(3, 12 + first, 4, generator=generator)
    found, sizes = merge_most_similar(x, size, keys, num_merged, first)
    assert found.shape == (3, 12 + first - num_merged, 5)
    torch.testing.assert_close((found * sizes).sum(1), (x * size).sum(1))
    assert torch.equal(found[:, :first], x[:, :first])
    for b in range(3):
        expected = sorted(merge_loop(x[b], size[b], keys[b], num_merged, first), key=lambda g: float(g[0][0]))
        order = found[b, :, 0].argsort()
        torch.testing.assert_close(found[b][order], torch.stack([token for token, _ in expected]))
        torch.testing.assert_close(sizes[b][order, 0], torch.tensor([total for _, total in expected]))


@pytest.mark.parametrize(
    ("patches", "tokens", "depth"), [(196, 64, 12), (196, 196, 12), (64, 1, 6), (64, 4, 4), (196, 100, 11)]
)
def test_schedules_end_at_the_budget(patches: int, tokens: int, depth: int) -> None:
    schedule = merge_schedule(patches, tokens, depth)
    assert len(schedule) == depth
    assert sum(schedule) == patches - tokens
    left = patches
    for merged in schedule:
        assert 0 <= merged <= left // 2
        left -= merged


def test_too_few_blocks_to_merge_are_refused() -> None:
    with pytest.raises(ValueError, match="2 blocks cannot merge 64 tokens down to 4; 16 would remain"):
        merge_schedule(64, 4, 2)
