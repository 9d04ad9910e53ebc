"""Real gloo ranks: the same curve for any number of them, bit-equal resume at the same number, tolerance at another."""

import dataclasses
from pathlib import Path

import pytest
import torch

from focusvit.train.config import TrainConfig
from focusvit.train.optim import OptimConfig
from testkit.gloo_ranks import run_ranks
from testkit.tiny_shards import make_dataset
from testkit.tiny_training import final_tensors, run_with_stops, small, values_of


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_dataset(tmp_path_factory.mktemp("data"))


# A gentle rate: the law is about equal gradients, and Adam's first steps blow rounding up to the size of the rate.
CONFIG = small(optim=OptimConfig(lr=1e-4, warmup_epochs=1))


def whole_and_parts(rank: int, world_size: int, uri: str, folder: str, config: TrainConfig) -> None:
    run_with_stops(config, uri, f"{folder}/whole-{world_size}", 0, rank, world_size)
    run_with_stops(config, uri, f"{folder}/parts-{world_size}", 2, rank, world_size)


def one_part(rank: int, world_size: int, uri: str, folder: str, config: TrainConfig) -> None:
    from focusvit.train.loop import train
    from testkit.tiny_training import Stop

    def die(samples: int, metrics: dict) -> None:
        raise Stop

    try:
        train(config, data_uri=uri, run_dir=folder, rank=rank, world_size=world_size, on_checkpoint=die)
    except Stop:
        return


def assert_close(a: dict[int, dict[str, float]], b: dict[int, dict[str, float]]) -> None:
    assert a.keys() == b.keys()
    for samples in a:
        assert a[samples].keys() == b[samples].keys()
        for name, value in a[samples].items():
            assert value == pytest.approx(b[samples][name], rel=2e-3, abs=2e-4), (samples, name)


# Three ranks are the smallest group in which the order of a sum can differ, so they are the ones of `make test`.
@pytest.mark.parametrize("world_size", [3, *(pytest.param(n, marks=pytest.mark.soak) for n in (2, 4, 5, 6, 7, 8))])
def test_ranks_equal_one_and_resume_bit_by_bit(uri: str, tmp_path: Path, world_size: int) -> None:
    run_with_stops(CONFIG, uri, str(tmp_path / "one"), 0)
    run_ranks(whole_and_parts, world_size, tmp_path, uri, str(tmp_path), CONFIG)
    whole, parts = tmp_path / f"whole-{world_size}", tmp_path / f"parts-{world_size}"
    assert_close(values_of(tmp_path / "one"), values_of(whole))
    assert values_of(parts) == values_of(whole)
    left, right = final_tensors(whole), final_tensors(parts)
    assert left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.soak
def test_the_number_of_ranks_may_change_on_the_way(uri: str, tmp_path: Path) -> None:
    run_with_stops(CONFIG, uri, str(tmp_path / "one"), 0)
    folder = tmp_path / "changing"
    for world_size in (2, 1, 3):
        run_ranks(one_part, world_size, tmp_path, uri, str(folder), CONFIG)
    run_with_stops(CONFIG, uri, str(folder), 0)
    assert_close(values_of(tmp_path / "one"), values_of(folder))


@pytest.mark.soak
@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_loader_workers_change_nothing(uri: str, tmp_path: Path, workers: int) -> None:
    config = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, loader_workers=workers))
    run_with_stops(CONFIG, uri, str(tmp_path / "without"), 0)
    run_with_stops(config, uri, str(tmp_path / "with"), 1)
    assert values_of(tmp_path / "with") == values_of(tmp_path / "without")
