"""The global order: every sample once per epoch, the same for any number of ranks, found without replay."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from focusvit.data.order import Order, key_of, rank_slice

SIZES = np.array([7, 3, 11, 5, 2, 9])
TOTAL = int(SIZES.sum())
KNOWN = 2221561305670491197  # a change here changes every run


@given(st.lists(st.integers(0, 12), min_size=1, max_size=12).filter(sum), st.integers(1, 5), st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_every_epoch_is_a_permutation(sizes: list[int], block: int, epoch: int) -> None:
    order = Order(np.array(sizes), 0, "id", block)
    total = sum(sizes)
    ids = order.sample_ids(epoch * total, (epoch + 1) * total)
    assert sorted(ids) == list(range(total))


@given(st.integers(0, 3 * TOTAL), st.integers(0, 2 * TOTAL))
@settings(max_examples=100, deadline=None)
def test_any_window_equals_the_slow_walk(start: int, length: int) -> None:
    slow = np.concatenate([Order(SIZES, 3, "id", 2).sample_ids(p, p + 1) for p in range(start, start + length)] or [[]])
    assert np.array_equal(Order(SIZES, 3, "id", 2).sample_ids(start, start + length), slow)


@pytest.mark.parametrize("world_size", range(1, 9))
@pytest.mark.parametrize("size", [8, 9, 13, 64])
def test_rank_slices_cover_a_batch_and_differ_by_one(world_size: int, size: int) -> None:
    slices = [rank_slice(size, rank, world_size) for rank in range(world_size)]
    assert slices[0][0] == 0 and slices[-1][1] == size
    assert all(a[1] == b[0] for a, b in itertools.pairwise(slices))
    lengths = [stop - start for start, stop in slices]
    assert max(lengths) - min(lengths) <= 1


def test_the_order_depends_on_seed_epoch_and_identity() -> None:
    base = Order(SIZES, 0, "a", 2).sample_ids(0, TOTAL)
    assert not np.array_equal(base, Order(SIZES, 1, "a", 2).sample_ids(0, TOTAL))
    assert not np.array_equal(base, Order(SIZES, 0, "b", 2).sample_ids(0, TOTAL))
    assert not np.array_equal(base, Order(SIZES, 0, "a", 2).sample_ids(TOTAL, 2 * TOTAL))
    assert np.array_equal(base, Order(SIZES, 0, "a", 2).sample_ids(0, TOTAL))


def test_a_batch_stays_inside_one_block_of_shards() -> None:
    sizes, block = np.full(64, 100), 8
    order = Order(sizes, 0, "id", block)
    ids = order.sample_ids(0, 8 * 100)  # one block
    assert len(set(ids // 100)) == block  # reads touch 8 shards only
    first = order.sample_ids(0, 64)
    assert len(set(first // 100)) == block  # and a batch mixes all of them


def test_an_index_of_imagenet_size_is_sought_at_once() -> None:
    order = Order(np.full(1281, 1000), 0, "id")
    ids = order.sample_ids(89 * 1_281_000 + 640_000, 89 * 1_281_000 + 641_024)
    assert len(set(ids)) == 1024
    assert len(order._blocks) <= 2  # only the block that was asked for was shuffled


def test_keys_do_not_depend_on_the_process_and_do_not_run_together() -> None:
    assert key_of("view", 1, 2, 3) == KNOWN
    assert key_of(1, 23) != key_of(12, 3)
