"""The merge order, cuts and fits equal slow, obvious references, and keep their promises on random input."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.superpixels.connected import connected_regions
from pipeline.superpixels.hierarchy import cut, fit, fit_pasted, fit_warped, merge_order
from testkit import regions as slow

fast = settings(max_examples=150, deadline=None)


@st.composite
def fine_maps(draw: st.DrawFn, max_side: int = 14) -> tuple[np.ndarray, np.ndarray]:
    """A random partition into connected regions (blobs of a blurred noise, or single pixels) and its merge order."""
    height, width = draw(st.integers(1, max_side)), draw(st.integers(1, max_side))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([1, 2, 3, 8]))
    labels = connected_regions(rng.integers(0, levels, (height, width)))
    lab = rng.integers(0, 256, (height, width, 3), np.uint8)
    fine = labels.astype(np.uint8)
    return fine, merge_order(fine, lab, draw(st.sampled_from([0.0, 4.0, 100.0])))


@st.composite
def crops(draw: st.DrawFn) -> tuple[float, float, float, float]:
    unit = st.floats(0, 1, allow_nan=False)
    (y0, y1), (x0, x1) = sorted((draw(unit), draw(unit))), sorted((draw(unit), draw(unit)))
    return (y0, x0, y1, x1) if y0 < y1 and x0 < x1 else (0.0, 0.0, 1.0, 1.0)


@fast
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1.0, 4.0]))
def test_merge_order_equals_the_slow_one(height: int, width: int, seed: int, weight: float) -> None:
    rng = np.random.default_rng(seed)
    fine = connected_regions(rng.integers(0, 3, (height, width)))
    lab = rng.integers(0, 256, (height, width, 3), np.uint8)
    expected = slow.slow_merge_order(fine, lab, weight, regions_px=7.3)
    assert merge_order(fine, lab, weight, regions_px=7.3).tolist() == expected.tolist()


def test_equal_costs_go_to_the_smaller_ids() -> None:
    fine = np.arange(12).reshape(3, 4)
    merges = merge_order(fine, np.zeros((3, 4, 3), np.uint8), 0.0)
    assert merges.tolist() == [[0, i] for i in range(1, 12)]
    assert merges.tolist() == slow.slow_merge_order(fine, np.zeros((3, 4, 3)), 0.0, 1.0).tolist()


def test_merge_order_is_wide_enough_for_more_than_256_regions() -> None:
    fine = np.arange(400).reshape(20, 20)
    lab = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    merges = merge_order(fine, lab, 4.0)
    assert merges.dtype == np.int32 and sorted(merges[:, 1].tolist()) == list(range(1, 400))


@fast
@given(fine_maps())
def test_cuts_are_exact_connected_nested_and_equal_the_slow_ones(sample: tuple[np.ndarray, np.ndarray]) -> None:
    fine, merges = sample
    coarser = None
    for k in range(1, len(merges) + 2):
        regions = cut(fine, merges, k)
        assert regions.dtype == np.uint8 and regions.shape == fine.shape
        assert np.array_equal(regions, slow.slow_cut(fine, merges, k))
        assert int(regions.max()) + 1 == k and slow.is_dense(regions) and slow.all_connected(regions)
        if coarser is not None:  # every region lies in one region of the cut before
            assert len(set(zip(regions.ravel().tolist(), coarser.ravel().tolist()))) == k
        coarser = regions


@fast
@given(fine_maps(), crops(), st.booleans(), st.integers(1, 17), st.integers(1, 17), st.data())
def test_fit_equals_the_slow_one(sample, crop, flip, height, width, data) -> None:  # type: ignore[no-untyped-def]
    fine, merges = sample
    k = data.draw(st.integers(1, height * width))
    regions = fit(fine, merges, crop, flip, (height, width), k)
    assert np.array_equal(regions, slow.slow_fit(fine, merges, crop, flip, (height, width), k))
    assert int(regions.max()) + 1 == k and slow.is_dense(regions)
    assert regions.dtype == (np.uint8 if k <= 256 else np.int16)


@fast
@given(fine_maps(), st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12), st.data())
def test_fit_of_any_geometry_equals_the_slow_one(sample, seed, height, width, data) -> None:  # type: ignore[no-untyped-def]
    fine, merges = sample
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(0, fine.shape[0], (height, width)), rng.integers(0, fine.shape[1], (height, width))
    warped = fine[rows, columns]
    k = data.draw(st.integers(1, height * width))
    assert np.array_equal(fit_warped(warped, merges, k), slow.slow_fit_warped(warped, merges, k))


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1), crops(), st.booleans(), st.sampled_from([1, 16, 49, 64, 196, 256, 257, 400, 1000]))
def test_fit_is_exact_at_real_sizes(seed: int, crop: tuple[float, float, float, float], flip: bool, k: int) -> None:
    rng = np.random.default_rng(seed)
    noise = cv2.resize(rng.integers(0, 256, (12, 16, 3), np.uint8), (170, 128), interpolation=cv2.INTER_CUBIC)
    blocks = np.arange(240).reshape(12, 20)[np.arange(128) * 12 // 128][:, np.arange(170) * 20 // 170].astype(np.uint8)
    merges = merge_order(blocks, noise, 4.0)
    regions = fit(blocks, merges, crop, flip, (224, 192), k)
    assert int(regions.max()) + 1 == k and slow.is_dense(regions) and np.bincount(regions.ravel()).min() > 0


def test_fit_of_the_whole_image_at_its_own_size_is_the_cut() -> None:
    fine = np.arange(64, dtype=np.uint8).reshape(8, 8)
    merges = merge_order(fine, np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8), 4.0)
    for k in (1, 7, 64):
        assert np.array_equal(fit(fine, merges, (0, 0, 1, 1), False, (8, 8), k), cut(fine, merges, k))
        mirrored = fit(fine, merges, (0, 0, 1, 1), True, (8, 8), k)
        assert np.array_equal(slow.dense(mirrored[:, ::-1]), cut(fine, merges, k))


def test_wrong_arguments_are_named() -> None:
    fine = np.arange(4, dtype=np.uint8).reshape(2, 2)
    merges = np.array([[0, 1], [0, 2], [0, 3]], np.uint8)
    whole = (0.0, 0.0, 1.0, 1.0)
    for k in (0, 5):
        with pytest.raises(ValueError, match=f"4 regions into {k}"):
            cut(fine, merges, k)
    for k in (0, 26):
        with pytest.raises(ValueError, match=f"{k} regions of a map of 5 x 5"):
            fit(fine, merges, whole, False, (5, 5), k)
    with pytest.raises(ValueError, match="crop"):
        fit(fine, merges, (0.5, 0, 0.5, 1), False, (5, 5), 2)
    with pytest.raises(ValueError, match="crop"):
        fit(fine, merges, (0, 0, 1, float("nan")), False, (5, 5), 2)
    with pytest.raises(ValueError, match="merge order does not know"):
        fit_warped(np.full((3, 3), 255, np.uint8), merges, 2)
    with pytest.raises(ValueError, match="uint8"):
        fit_warped(np.zeros((3, 3), np.int64), merges, 2)
    with pytest.raises(ValueError, match="dense"):
        merge_order(np.array([[0, 2]]), np.zeros((1, 2, 3), np.uint8), 1.0)
    with pytest.raises(ValueError, match="lab"):
        merge_order(fine, np.zeros((3, 3, 3), np.uint8), 1.0)


@pytest.mark.parametrize(
    ("step", "pair"),
    [(0, (0, 200)), (2, (0, 1)), (2, (1, 4)), (1, (5, 5)), (1, (6, 3))],
    ids=["an id the map lacks", "merged twice", "into one that is gone", "into itself", "the larger id survives"],
)
def test_a_damaged_merge_order_is_refused_and_never_gives_another_number_of_regions(
    step: int, pair: tuple[int, int]
) -> None:
    fine = np.repeat(np.arange(10, dtype=np.uint8), 10).reshape(10, 10)
    merges = np.array([(0, other) for other in range(1, 10)], np.uint8)
    assert len(np.unique(fit_warped(fine, merges, 3))) == len(np.unique(cut(fine, merges, 3))) == 3
    merges[step] = pair
    for make in (fit_warped, cut):
        with pytest.raises(ValueError, match="merge order"):
            make(fine, merges, 3)
    with pytest.raises(ValueError, match="n <= 256"):
        fit_warped(fine, np.zeros((299, 2), np.uint8), 3)


@fast
@given(fine_maps(), fine_maps(), st.integers(0, 2**32 - 1), st.data())
def test_a_pasted_map_is_the_fits_of_its_two_parts(host, guest, seed: int, data: st.DataObject) -> None:  # type: ignore[no-untyped-def]
    """Each part is fitted as a row of its pixels; together they are numbered in raster order."""
    height, width = (min(pair) for pair in zip(host[0].shape, guest[0].shape))
    fine = [np.ascontiguousarray(part[0][:height, :width]) for part in (host, guest)]
    mask = np.random.default_rng(seed).random((height, width)) < 0.5
    if mask.all() or not mask.any():
        return
    counts = (data.draw(st.integers(1, int((~mask).sum()))), data.draw(st.integers(1, int(mask.sum()))))
    found = fit_pasted(fine[0], host[1], fine[1], guest[1], mask, counts)
    joined = np.empty(mask.shape, np.int64)
    joined[~mask] = fit_warped(np.ascontiguousarray(fine[0][~mask][None]), host[1], counts[0])[0]
    joined[mask] = counts[0] + fit_warped(np.ascontiguousarray(fine[1][mask][None]), guest[1], counts[1])[0].astype(int)
    first = np.unique(joined, return_index=True)[1]
    assert found.dtype == np.uint8 and np.array_equal(found, np.argsort(np.argsort(first))[joined])


def test_a_pasted_map_of_wrong_parts_is_refused() -> None:
    fine, merges, mask = np.zeros((2, 2), np.uint8), np.empty((0, 2), np.uint8), np.eye(2, dtype=bool)
    with pytest.raises(ValueError, match="must agree"):
        fit_pasted(fine, merges, fine[:1], merges, mask, (1, 1))
    with pytest.raises(ValueError, match="cannot make 3 regions"):
        fit_pasted(fine, merges, fine, merges, mask, (3, 1))
