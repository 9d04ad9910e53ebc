"""Laws of `focusvit.patch` for every host: one region a patch is the host itself, and pooling equal patches changes
nothing."""

from itertools import pairwise

import pytest
import torch

import focusvit
from focusvit.drop_in.hosts import find_host
from testkit.hosts import GRID, HOSTS, PATCH, ROTARY, SIDE, answer, make, without_positions

PIXELS = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
ONE_EACH = torch.arange(GRID * GRID).view(1, GRID, GRID).expand(2, -1, -1)
HALVES = (torch.arange(8)[:, None] // 4 * 2 + torch.arange(8) // 4).expand(2, -1, -1)  # four quarters of the image


@pytest.fixture(params=HOSTS)
def host(request):
    return request.param, make(request.param)


@torch.no_grad()
def test_one_region_a_patch_is_the_host_and_unpatch_restores(host):
    _, model = host
    before, names = answer(model, PIXELS), list(model.state_dict())
    focusvit.patch(model, tokens=GRID * GRID, depth=1, merge="colour")
    torch.testing.assert_close(answer(model, PIXELS, maps=ONE_EACH), before, atol=1e-5, rtol=1e-5)
    assert list(model.state_dict()) == names
    focusvit.unpatch(model)
    assert torch.equal(answer(model, PIXELS), before)


@torch.no_grad()
def test_pooling_equal_patches_changes_nothing(host):
    """Log area on keys, and means that count patches: on images of constant regions the host's own answer comes out."""
    name, model = host
    if name in ROTARY:
        pytest.skip("patches of a rotary model differ by their place")
    without_positions(model)
    colours = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1))
    strips = torch.tensor([0, 1, 1, 1]).repeat_interleave(PATCH)  # regions of 1, 3, 3 and 9 patches
    regions = strips[:, None] * 2 + strips
    pixels = colours[:, :, regions]
    before = answer(model, pixels)
    focusvit.patch(model, tokens=4, depth=1, merge="colour")
    after = answer(model, pixels, maps=regions.expand(2, -1, -1))
    torch.testing.assert_close(after, before, atol=2e-5, rtol=1e-5)


@torch.no_grad()
def test_fewer_tokens_run_and_ids_mean_nothing(host):
    _, model = host
    before = answer(model, PIXELS)
    focusvit.patch(model, tokens=4, depth=2, merge="colour")
    widths = []
    for attention in find_host(model).attentions:
        attention.register_forward_pre_hook(
            lambda module, args, kwargs: widths.append(next(iter((*args, *kwargs.values()))).shape[1]),
            with_kwargs=True,
        )
    plain = answer(model, PIXELS, maps=HALVES)
    prefix = widths[0] - GRID * GRID
    assert widths == [prefix + 16, prefix + 16, prefix + 4, prefix + 4]
    assert plain.shape == before.shape
    torch.testing.assert_close(answer(model, PIXELS, maps=3 - HALVES), plain, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(answer(model, PIXELS, maps=HALVES.transpose(1, 2) // 2), plain, atol=1e-6, rtol=0)


@torch.no_grad()
def test_nested_levels_and_merging_by_keys(host):
    _, model = host
    before = answer(model, PIXELS)
    colour = {"merge": "colour", "mean": (0.5,) * 3, "std": (0.5,) * 3}
    for way in (colour, {"merge": "keys"}):
        focusvit.patch(model, tokens={1: 9, 2: 6, 3: 3}, **way)
        found = answer(model, PIXELS)
        assert found.shape == before.shape and found.isfinite().all()
        assert not torch.allclose(found, before, atol=1e-4)
        levels = model._focusvit_patch.call.levels
        assert [level.overlap.shape[1] for level in levels] == [9, 6, 3]
        for fine, coarse in pairwise(levels):
            torch.testing.assert_close(coarse.overlap, (coarse.weights > 0).float() @ fine.overlap)  # unions
            torch.testing.assert_close(coarse.weights.sum(2), torch.ones(2, coarse.weights.shape[1]))
        focusvit.unpatch(model)


def test_gradients_reach_the_first_weights(host):
    _, model = host
    focusvit.patch(model, tokens=4, depth=1, merge="colour")
    answer(model, PIXELS, maps=HALVES).square().sum().backward()
    assert find_host(model).patches.weight.grad.abs().sum() > 0
