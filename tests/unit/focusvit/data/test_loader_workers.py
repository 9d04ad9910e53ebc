"""The laws of the loader on real shards, for world sizes 1 to 8 and 0 to 3 loader workers, mixing and colours on."""

import dataclasses
import itertools
import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from focusvit.data.batch import Batch
from focusvit.data.config import DataConfig, MixConfig
from focusvit.data.loader import EvalLoader, TrainLoader, _watched
from pipeline.errors import DataError
from pipeline.shards.dataset import Split, open_dataset
from testkit.tiny_shards import make_dataset

MIX = MixConfig(mixup=0.8, cutmix=1.0, cutmix_shape="superpixels")
DATA = DataConfig(image_px=32, map_px=16, colour="3-augment", colour_jitter=0.3, erase=0.3, mix=MIX, prefetch=1)
BATCH, STEPS, SAMPLES = 11, 6, 50  # the six global batches run over the border of an epoch
ALL = list(itertools.product(range(1, 9), range(4)))
FEW = [(1, 3), (8, 0)]  # the rest in the long campaign: each loader worker is a process


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_dataset(tmp_path_factory.mktemp("data"), splits={"train": SAMPLES, "val": 17})


@pytest.fixture(scope="module")
def whole(uri: str) -> list[dict[str, np.ndarray]]:
    split = open_dataset(uri).split("train")
    return [_joined([batch]) for batch in _loader(split, 0, 1, 0)]


def _loader(split: Split, rank: int, world_size: int, workers: int, steps: int = STEPS) -> TrainLoader:
    data = dataclasses.replace(DATA, loader_workers=workers)
    options: dict[str, Any] = {"seed": 5, "global_batch": BATCH, "tokens": 6, "total_samples": steps * BATCH}
    return TrainLoader(split, data, rank=rank, world_size=world_size, **options)


def _joined(parts: list[Batch]) -> dict[str, np.ndarray]:
    names = ("images", "maps", "class_ids", "sample_ids", "mix_ids", "mix_share")
    parts = [part.finished() for part in parts]
    return {name: torch.cat([getattr(part, name) for part in parts]).numpy() for name in names}


def _check_train(split: Split, whole: list[dict[str, np.ndarray]], world_size: int, workers: int) -> None:
    ranks = [_loader(split, rank, world_size, workers, 4) for rank in range(world_size)]
    first = [list(loader) for loader in ranks]
    assert {len(batches) for batches in first} == {4}  # every rank the same number of steps
    for step in range(4):
        sizes = [len(batches[step]) for batches in first]
        assert sum(sizes) == BATCH and max(sizes) - min(sizes) <= 1
        _same(_joined([batches[step] for batches in first]), whole[step])
    assert {loader.samples_seen for loader in ranks} == {4 * BATCH}
    other = [_loader(split, rank, 9 - world_size, 3 - workers) for rank in range(9 - world_size)]
    rest = []
    for loader in other:
        loader.samples_seen = 4 * BATCH
        rest.append(list(loader))
    for step in range(4, STEPS):
        _same(_joined([batches[step - 4] for batches in rest]), whole[step])


def _same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name, values in expected.items():
        assert np.array_equal(found[name], values), name


def _check_evaluation(split: Split, world_size: int, workers: int) -> None:
    data = dataclasses.replace(DATA, loader_workers=workers)
    seen: list[int] = []
    for rank in range(world_size):
        for batch in EvalLoader(split, data, batch_size=4, rank=rank, world_size=world_size, tokens=6):
            seen += batch.sample_ids.tolist()
    assert sorted(seen) == list(range(split.num_samples))
    assert multiprocessing.active_children() == []  # what decoded for a scoring does not wait for the next one


@pytest.mark.parametrize(("world_size", "workers"), FEW)
def test_same_global_batches_stop_and_resume_elsewhere(uri: str, whole: Any, world_size: int, workers: int) -> None:
    _check_train(open_dataset(uri).split("train"), whole, world_size, workers)
    _check_evaluation(open_dataset(uri).split("val"), world_size, workers)


@pytest.mark.soak
@pytest.mark.parametrize(("world_size", "workers"), [pair for pair in ALL if pair not in FEW])
def test_every_other_number_of_ranks_and_workers(uri: str, whole: Any, world_size: int, workers: int) -> None:
    _check_train(open_dataset(uri).split("train"), whole, world_size, workers)
    _check_evaluation(open_dataset(uri).split("val"), world_size, workers)


def test_every_sample_of_an_epoch_once_with_mixing(uri: str, whole: list[dict[str, np.ndarray]]) -> None:
    ids = np.concatenate([batch["sample_ids"] for batch in whole])[:SAMPLES]
    assert sorted(ids) == list(range(SAMPLES))


def test_what_a_worker_finds_wrong_comes_as_its_own_words(tmp_path: Path) -> None:
    split = open_dataset(make_dataset(tmp_path, splits={"train": 8, "val": 4}, bad=[5])).split("train")
    with pytest.raises(DataError, match=r"^Sample 5 of split 'train' does not decode") as caught:
        list(EvalLoader(split, dataclasses.replace(DATA, loader_workers=1), batch_size=8, tokens=8))
    assert "Traceback" not in str(caught.value)


def test_a_bug_in_a_worker_is_no_lack_of_memory() -> None:
    with pytest.raises(RuntimeError, match="sizes differ"):
        list(_watched(_raising(RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nsizes differ"))))


def _raising(error: Exception) -> Iterator[Batch]:
    raise error
    yield


def test_a_worker_that_dies_is_no_silent_end(uri: str, tmp_path: Path) -> None:
    split = open_dataset(make_dataset(tmp_path)).split("train")
    batches = iter(_loader(split, 0, 1, 2))
    next(batches)
    for child in psutil.Process().children(recursive=True):
        if "forkserver" in " ".join(child.cmdline()) and not child.children():
            child.kill()
    with pytest.raises(DataError, match=r"A loader worker died .* fewer data\.loader_workers"):
        list(batches)
