"""Overlap, regions and static partitions against loops."""

import numpy as np
import pytest
import torch

from focusvit.model.partitions import grid_cells, patch_regions, random_cells, static_partition
from focusvit.model.position import RegionFeatures
from focusvit.model.regions import harden, measure_regions, overlap_matrix
from testkit import model_reference as reference

GRID = (4, 6)


@pytest.mark.parametrize("num_tokens", [1, 5, 24, 60])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_overlap_is_the_share_of_each_patch(num_tokens: int, dtype: torch.dtype) -> None:
    config = reference.tiny_config()
    maps = reference.maps(3, config, num_tokens, scale=4).to(dtype)
    overlap = overlap_matrix(maps, GRID, num_tokens)
    for found, map_ in zip(overlap, maps.numpy()):
        np.testing.assert_array_equal(found.numpy(), reference.overlap_loop(map_, GRID, num_tokens))
    assert torch.equal(overlap.sum(1), torch.ones(3, 24))
    assert (overlap.sum(2) > 0).all()


@pytest.mark.parametrize("num_tokens", [1, 7, 60])
def test_regions_are_moments_of_square_pixels(num_tokens: int) -> None:
    maps = reference.maps(2, reference.tiny_config(), num_tokens, scale=4)
    regions = measure_regions(maps, num_tokens)
    for i, map_ in enumerate(maps.numpy()):
        area, centre, covariance = reference.regions_loop(map_, num_tokens)
        np.testing.assert_allclose(regions.area[i], area, rtol=1e-6)
        np.testing.assert_allclose(regions.centre[i], centre, rtol=1e-5, atol=1e-6)
        # 8 x 8 points stand for a pixel: their variance is 1/12 (1 - 1/64) of its square.
        np.testing.assert_allclose(regions.covariance[i], covariance, rtol=2e-2, atol=1e-5)


def test_regions_do_not_depend_on_the_resolution_of_the_map() -> None:
    coarse = reference.maps(2, reference.tiny_config(), 7, scale=2)
    fine = coarse.repeat_interleave(4, 1).repeat_interleave(4, 2)
    for a, b in zip(measure_regions(coarse, 7), measure_regions(fine, 7)):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(overlap_matrix(coarse, GRID, 7), overlap_matrix(fine, GRID, 7))


def test_a_large_map_is_exact() -> None:
    """One region over 1024 x 1024 pixels: sums of squares exceed 2^24, the float32 limit of whole numbers."""
    regions = measure_regions(torch.zeros(1, 1024, 1024, dtype=torch.uint8), 1)
    assert regions.area.item() == 1
    torch.testing.assert_close(regions.centre, torch.full((1, 1, 2), 0.5), rtol=0, atol=1e-7)
    torch.testing.assert_close(regions.covariance, torch.tensor([[[1 / 12, 1 / 12, 0]]]), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("num_tokens", [1, 7, 24, 60])
def test_hard_membership_follows_the_loop_and_leaves_no_region_empty(num_tokens: int) -> None:
    generator = torch.Generator().manual_seed(0)
    overlap = torch.rand(3, num_tokens, 24, generator=generator)
    overlap = overlap * (torch.rand(overlap.shape, generator=generator) < 0.7)
    member = harden(overlap, torch.rand(3, num_tokens, 2, generator=generator))
    for found, one in zip(member, overlap):
        np.testing.assert_array_equal(found.numpy(), reference.harden_loop(one.numpy()))
    real = overlap_matrix(reference.maps(3, reference.tiny_config(), num_tokens), GRID, num_tokens)
    assert (harden(real, torch.zeros(3, num_tokens, 2)).sum(2) > 0).all()


def test_ties_of_hard_membership_go_by_position_and_not_by_id() -> None:
    """Every 2 x 2 patch is half region 0, half region 1."""
    map_ = torch.zeros(1, 8, 12, dtype=torch.long)
    map_[:, :, 1::2] = 1
    for ids in (map_, 1 - map_):
        regions = measure_regions(ids, 2)
        member = harden(overlap_matrix(ids, GRID, 2), regions.centre)
        left = regions.centre[0, :, 1].argmin()
        assert member[0, left].sum() == 24
        assert member[0, 1 - left].sum() == 1


@pytest.mark.parametrize(("num", "height", "width"), [(1, 3, 5), (7, 16, 24), (15, 3, 5), (50, 14, 14), (49, 7, 100)])
def test_grid_cells_are_exactly_as_many_and_alike(num: int, height: int, width: int) -> None:
    cells = grid_cells(num, height, width)
    ids, counts = np.unique(cells, return_counts=True)
    assert ids.tolist() == list(range(num))
    assert counts.max() <= 4 * counts.min()
    assert np.array_equal(np.unique(random_cells(num, height, width, 3)), ids)


def test_a_square_number_of_grid_cells_is_a_square_grid() -> None:
    expected = np.arange(16).reshape(4, 4).repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(grid_cells(16, 8, 8), expected)


@pytest.mark.parametrize("make", [lambda: grid_cells(7, 2, 3), lambda: random_cells(0, 2, 3, 0)])
def test_cells_that_do_not_fit_are_refused(make: object) -> None:
    with pytest.raises(ValueError, match=r"do not fit a map of 2x3; use 1\.\.6"):
        make()


def test_static_partitions_have_more_cells_than_patches_when_asked() -> None:
    overlap, regions = static_partition("grid", 500, (4, 4))
    assert overlap.shape == (1, 500, 16)
    assert (overlap.sum(2) > 0).all()
    assert regions.area.sum().item() == pytest.approx(1)


def test_features_tell_neighbouring_patches_apart_and_are_bounded() -> None:
    """The original's encoding had a mean cosine of 0.995 between positions: no position at all."""
    config = reference.tiny_config(image_px=224, patch_px=16)
    features = RegionFeatures(config)(patch_regions(config.grid))[0, :, :32]
    cosine = torch.nn.functional.cosine_similarity(features[:, None], features[None], dim=-1)
    others = cosine[~torch.eye(len(features), dtype=torch.bool)]
    assert others.max() < 0.95
    assert others.mean().abs() < 0.35
    tiny_region = measure_regions(torch.nn.functional.pad(torch.ones(1, 1, 1, dtype=torch.long), (3, 220, 2, 221)), 2)
    assert RegionFeatures(config)(tiny_region).abs().max() < 10


def test_features_follow_their_formula() -> None:
    """Cycles from 1/4 to 16 in equal ratios along y, then x: sines, cosines; log area in patches; shape by a square."""
    config = reference.tiny_config()
    regions = measure_regions(reference.maps(1, config, 7), 7)
    found = RegionFeatures(config)(regions)[0]
    cycles = [0.25 * 64 ** (i / 7) for i in range(8)]
    for k in range(7):
        area, (y, x) = float(regions.area[0, k]), regions.centre[0, k].tolist()
        waves = [[f(2 * np.pi * c * place) for f in (np.sin, np.cos) for c in cycles] for place in (y, x)]
        square = area / 12 * np.array([24 / 16, 16 / 24, 1.0])  # variances of a square, in units of the image's sides
        shape = np.arcsinh(regions.covariance[0, k].numpy() / square)
        expected = [*waves[0], *waves[1], np.log(24 * area), *shape]
        np.testing.assert_allclose(found[k], expected, rtol=1e-4, atol=1e-4)


def test_a_square_patch_has_shape_one_at_any_size() -> None:
    config = reference.tiny_config()
    shape = RegionFeatures(config)(patch_regions(config.grid))[..., -3:].sinh()
    torch.testing.assert_close(shape, torch.tensor([1.0, 1.0, 0.0]).expand_as(shape), rtol=1e-4, atol=1e-5)
