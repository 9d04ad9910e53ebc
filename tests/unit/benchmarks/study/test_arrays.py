"""The array loader keeps the promises of the shard loader."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from focusvit.data.loader import DataConfig, EvalLoader, TrainLoader
from pipeline.shards.dataset import open_dataset
from testkit.tiny_shards import make_dataset
from tests.benchmarks.study.arrays import ArrayData, ArrayEvalLoader, ArrayTrainLoader, collect, shifted


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> ArrayData:
    folder: Path = tmp_path_factory.mktemp("data")
    split = open_dataset(make_dataset(folder)).split("train")
    batches = EvalLoader(split, DataConfig(image_px=32, map_px=16), batch_size=7, tokens=6)
    return collect(batches, split.identity)


def test_ranks_and_starts_see_the_same_global_batches(arrays: ArrayData) -> None:
    whole = list(ArrayTrainLoader(arrays, seed=1, global_batch=9, total_samples=63))
    for world_size in (2, 3, 8):
        ranks = [
            list(ArrayTrainLoader(arrays, seed=1, global_batch=9, rank=r, world_size=world_size, total_samples=63))
            for r in range(world_size)
        ]
        for step, batch in enumerate(whole):
            assert torch.equal(torch.cat([rank[step].images for rank in ranks]), batch.images)
    rest = list(ArrayTrainLoader(arrays, seed=1, global_batch=9, start_samples=27, total_samples=63))
    assert all(torch.equal(a.images, b.images) for a, b in zip(rest, whole[3:], strict=True))


def test_mirroring_moves_image_and_map_together(arrays: ArrayData) -> None:
    flips = 0
    for batch in ArrayTrainLoader(arrays, seed=1, global_batch=10, total_samples=50):
        batch.check(num_classes=4)
        assert batch.maps is not None and arrays.maps is not None
        for i, sample in enumerate(batch.sample_ids.tolist()):
            same = torch.equal(batch.images[i], arrays.images[sample])
            flips += not same
            assert torch.equal(batch.maps[i], arrays.maps[sample] if same else arrays.maps[sample].flip(-1))
    assert 10 < flips < 40


def test_shifts_move_image_and_map_together_and_lose_no_region(arrays: ArrayData) -> None:
    """Against numpy's reflecting pad, pixel by pixel."""
    moved = 0
    for batch in ArrayTrainLoader(arrays, seed=1, global_batch=10, total_samples=50, flip=0.0, shifts=True):
        batch.check(num_classes=4)
        assert batch.maps is not None and arrays.maps is not None
        for i, sample in enumerate(batch.sample_ids.tolist()):
            image, regions = arrays.images[sample].numpy(), arrays.maps[sample].numpy()
            wide = np.pad(image, ((0, 0), (4, 4), (4, 4)), mode="reflect")
            at = [(y, x) for y in range(9) for x in range(9)
                  if (wide[:, y : y + 32, x : x + 32] == batch.images[i].numpy()).all()]  # fmt: skip
            assert len(at) == 1
            y, x = at[0]
            moved += (y, x) != (4, 4)
            if y % 2 == 0 and x % 2 == 0:  # a whole pixel of the map, which has half the side
                wide = np.pad(regions, 2, mode="reflect")
                assert (wide[y // 2 : y // 2 + 16, x // 2 : x // 2 + 16] == batch.maps[i].numpy()).all()
    assert moved > 30


def test_a_sample_that_would_lose_a_region_stays(arrays: ArrayData) -> None:
    batch = next(iter(ArrayTrainLoader(arrays, seed=1, global_batch=2, flip=0.0)))
    assert batch.maps is not None
    batch.maps[0] = 0
    batch.maps[0, :, 15], batch.maps[0, :2, 0] = 1, torch.tensor([2, 3])
    batch.maps[0, 2:4, 0] = torch.tensor([4, 5])
    found = shifted(batch, torch.tensor([[0, 4], [0, 0]]))  # the last column of the map leaves
    assert torch.equal(found.images[0], batch.images[0]) and torch.equal(found.maps[0], batch.maps[0])  # type: ignore[index]


@pytest.mark.parametrize("world_size", [1, 3, 8])
def test_evaluation_has_every_sample_once(arrays: ArrayData, world_size: int) -> None:
    parts = [ArrayEvalLoader(arrays, batch_size=4, rank=r, world_size=world_size) for r in range(world_size)]
    seen = np.concatenate([batch.sample_ids.numpy() for part in parts for batch in part])
    assert seen.tolist() == list(range(50))


def test_both_kinds_of_loaders_have_one_interface(arrays: ArrayData, tmp_path: Path) -> None:
    """Every public name of the shard loaders; and each kind counts, peeks and refuses alike."""
    split = open_dataset(make_dataset(tmp_path)).split("train")
    options: dict[str, Any] = {"seed": 1, "global_batch": 9, "rank": 0, "world_size": 1, "total_samples": 18}
    shards, held = TrainLoader(split, DataConfig(image_px=32), **options), ArrayTrainLoader(arrays, **options)
    evaluations = EvalLoader(split, DataConfig(image_px=32), batch_size=7), ArrayEvalLoader(arrays, batch_size=7)
    for ours, theirs in ((held, shards), evaluations[::-1]):
        assert {n for n in dir(theirs) if not n.startswith("_")} <= {n for n in dir(ours) if not n.startswith("_")}
    assert len(evaluations[0]) == len(evaluations[1]) == len(list(evaluations[1])) == 8
    assert evaluations[0].num_classes == evaluations[1].num_classes == 4
    for loader in (shards, held):
        first = loader.peek()
        assert loader.samples_seen == 0
        assert torch.equal(next(iter(loader)).sample_ids, first.sample_ids) and loader.samples_seen == 9
    with pytest.raises(ValueError, match="some of 10 workers no sample"):
        ArrayTrainLoader(arrays, **{**options, "world_size": 10})
