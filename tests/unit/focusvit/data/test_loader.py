"""Batches: the same samples in the same global batches for any number of ranks, from any position, with exact maps."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from focusvit.data.batch import Batch
from focusvit.data.loader import DataConfig, EvalLoader, TrainLoader
from pipeline.errors import DataError, UsageError
from pipeline.shards.dataset import Split, open_dataset
from testkit.tiny_shards import make_dataset

DATA = DataConfig(image_px=32, map_px=16, crop_scale=(0.3, 1.0))
BATCH, TOKENS = 8, 6


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def train_split(uri: str) -> Split:
    return open_dataset(uri).split("train")


def loader(
    split: Split, rank: int = 0, world_size: int = 1, start: int = 0, batches: int = 9, **more: Any
) -> TrainLoader:
    options = {"seed": 5, "global_batch": BATCH, "tokens": TOKENS, **more}
    data = options.pop("data", DATA)
    total = batches * options["global_batch"]
    return TrainLoader(
        split, data, rank=rank, world_size=world_size, start_samples=start, total_samples=total, **options
    )


def joined(parts: list[Batch]) -> dict[str, np.ndarray]:
    names = ("images", "maps", "class_ids", "sample_ids", "mix_ids", "mix_share")
    kept = [n for n in names if getattr(parts[0], n) is not None]
    return {n: torch.cat([getattr(p, n) for p in parts]).numpy() for n in kept}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def whole(train_split: Split) -> list[dict[str, np.ndarray]]:
    return [joined([batch]) for batch in loader(train_split)]


@pytest.mark.parametrize("world_size", range(2, 9))
def test_any_number_of_ranks_sees_the_same_global_batches(train_split: Split, whole: list, world_size: int) -> None:
    ranks = [list(loader(train_split, rank, world_size, batches=4)) for rank in range(world_size)]
    for step in range(4):
        assert same(joined([rank[step] for rank in ranks]), whole[step])


@pytest.mark.parametrize("start", [1, 5, 8])
def test_a_start_in_the_middle_equals_the_whole(train_split: Split, whole: list, start: int) -> None:
    rest = [joined([batch]) for batch in loader(train_split, start=start * BATCH)]
    assert len(rest) == len(whole) - start
    assert all(same(a, b) for a, b in zip(rest, whole[start:], strict=True))


def test_the_position_counts_what_was_handed_out(train_split: Split, whole: list) -> None:
    first = loader(train_split)
    batches = iter(first)
    next(batches), next(batches), next(batches)
    assert first.samples_seen == 3 * BATCH
    again = loader(train_split)
    again.samples_seen = first.samples_seen
    assert same(joined([next(iter(again))]), whole[3])


def test_every_epoch_has_every_sample_once(train_split: Split) -> None:
    total = train_split.num_samples
    seen = np.concatenate([b.sample_ids.numpy() for b in loader(train_split, batches=26, global_batch=4)])
    assert sorted(seen[:total]) == list(range(total)) == sorted(seen[total : 2 * total])


def test_batches_pass_their_own_check_and_hold_the_right_classes(train_split: Split) -> None:
    batches = list(loader(train_split, batches=3))
    assert len(batches) == 3
    for batch in batches:
        batch.check(num_classes=4)
        assert np.array_equal(batch.class_ids.numpy(), train_split.class_ids[batch.sample_ids.numpy()])
        assert batch.maps is not None and batch.maps.shape == (BATCH, 16, 16) and batch.num_tokens == TOKENS


def test_too_small_a_batch_is_a_usage_error(train_split: Split) -> None:
    with pytest.raises(UsageError, match="gives some of 9 workers no sample"):
        loader(train_split, 0, 9)


@pytest.mark.parametrize("world_size", range(1, 9))
def test_evaluation_has_every_sample_exactly_once(uri: str, world_size: int) -> None:
    split = open_dataset(uri).split("val")
    seen = []
    for rank in range(world_size):
        batches = EvalLoader(split, DATA, batch_size=3, rank=rank, world_size=world_size, tokens=TOKENS)
        for batch in batches:
            batch.check()
            seen += batch.sample_ids.tolist()
    assert sorted(seen) == list(range(split.num_samples))


def test_without_maps_there_are_none(train_split: Split) -> None:
    batch = next(iter(loader(train_split, tokens=None)))
    assert batch.maps is None and batch.num_tokens is None


def test_a_bad_sample_is_replaced_and_counted_in_training(tmp_path: Path) -> None:
    split = open_dataset(make_dataset(tmp_path, splits={"train": 20, "val": 4}, bad=(3, 7))).split("train")
    batches = list(loader(split, batches=5, global_batch=4))
    assert sum(b.num_replaced for b in batches) == 2
    again = [b for rank in (0, 1) for b in loader(split, rank, 2, batches=5, global_batch=4)]
    assert sum(b.num_replaced for b in again) == 2
    together = joined([again[0], again[5]])
    assert same(together, joined([batches[0]]))  # the same replacement on any number of ranks


def test_a_bad_sample_is_fatal_in_evaluation(tmp_path: Path) -> None:
    split = open_dataset(make_dataset(tmp_path, splits={"train": 12, "val": 4}, bad=(5,))).split("train")
    with pytest.raises(DataError, match=r"Sample 5 of split 'train' does not decode"):
        list(EvalLoader(split, DATA, batch_size=4, tokens=TOKENS))


def test_batch_check_names_what_is_wrong(train_split: Split) -> None:
    batch = next(iter(loader(train_split)))
    assert batch.maps is not None
    holes = batch.maps.clone()
    holes[2][holes[2] == 1] = 0
    with pytest.raises(ValueError, match="image 2 holds 5 regions for 6 tokens"):
        dataclasses.replace(batch, maps=holes).check()
    with pytest.raises(ValueError, match="the model has 2 classes"):
        batch.check(num_classes=2)
    with pytest.raises(ValueError, match=r"uint8 \(B, 3, H, W\)"):
        dataclasses.replace(batch, images=batch.images.float()).check()


def test_split_gives_micro_batches_in_order(train_split: Split) -> None:
    batch = next(iter(loader(train_split)))
    parts = batch.split(3)
    assert [len(p) for p in parts] == [3, 3, 2]
    assert same(joined(parts), joined([batch]))
