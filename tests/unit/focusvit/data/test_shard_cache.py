"""The cache of an object store: the same samples, a bounded size, nothing half-downloaded taken for good."""

import dataclasses
import fcntl
import pickle
import time
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch

from focusvit.data.loader import DataConfig, EvalLoader, TrainLoader
from focusvit.data.order import Order
from focusvit.data.shard_cache import CachedSplit, cached, check_whole
from pipeline.errors import DataError, UsageError
from pipeline.io import storage
from pipeline.shards.dataset import Split, open_dataset
from testkit.tiny_shards import make_dataset


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Split, Split]:
    """The same data set on the disk and in a store."""
    local = make_dataset(tmp_path_factory.mktemp("data"))
    fsspec.filesystem("memory").put(local, "/cache-test", recursive=True)
    return open_dataset(local).split("train"), open_dataset("memory://cache-test").split("train")


def test_a_store_gives_the_same_samples_through_the_cache(stores: tuple[Split, Split], tmp_path: Path) -> None:
    local, remote = stores
    split = cached(remote, str(tmp_path), 1.0)
    assert isinstance(split, CachedSplit) and cached(remote, None, 1.0) is remote
    assert split.num_samples == local.num_samples and split.identity == local.identity
    for _ in range(2):  # by range from the store, then from the local shard
        for sample in (0, 17, 49, 3):
            ours, theirs = split.read(sample), local.read(sample)
            assert ours.key == theirs.key and ours.image == theirs.image
        split.wait()
    assert len(list(tmp_path.glob("*/*.tar"))) == 3  # shards of the four samples, not all six
    again = pickle.loads(pickle.dumps(split))
    assert again.read(5).key == local.read(5).key


def test_shards_on_mounted_storage_are_cached_and_not_hashed_there_as_well(
    stores: tuple[Split, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder is mounted storage, for all that anyone can tell: whoever names a cache folder means it."""
    local, _ = stores
    monkeypatch.setattr("focusvit.data.loader.prove_shard", lambda *given: pytest.fail("a whole shard was read there"))
    options: dict[str, Any] = {"seed": 0, "global_batch": 5, "rank": 0, "world_size": 1, "tokens": 5}
    data = DataConfig(image_px=32, cache_dir=str(tmp_path), check_shards="local")
    loader = TrainLoader(local, data, total_samples=50, **options)
    found = [i for batch in loader for i in batch.sample_ids.tolist()]
    assert sorted(found) == list(range(50))
    deadline = time.monotonic() + 10
    while len(list(tmp_path.glob("*/*.tar"))) < local.info.num_shards and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(list(tmp_path.glob("*/*.tar"))) == local.info.num_shards


def test_what_is_cached_is_not_asked_of_the_store_again(stores: tuple[Split, Split], tmp_path: Path) -> None:
    split = cached(stores[1], str(tmp_path), 1.0)
    assert isinstance(split, CachedSplit)
    split.prefetch(range(6))
    split.wait()
    gone = dataclasses.replace(stores[1], uri=stores[1].uri)
    split._split = dataclasses.replace(gone, uri="memory://nowhere")
    assert [split.read(i).key for i in range(50)] == [stores[0].read(i).key for i in range(50)]


def test_the_loaders_read_a_store_with_and_without_cache(stores: tuple[Split, Split], tmp_path: Path) -> None:
    options: dict[str, Any] = {"seed": 1, "global_batch": 8, "rank": 0, "world_size": 1, "tokens": 5}
    base = DataConfig(image_px=32)
    expected = [batch.images for batch in TrainLoader(stores[0], base, total_samples=120, **options)]
    for data in (base, dataclasses.replace(base, cache_dir=str(tmp_path))):
        found = [batch.images for batch in TrainLoader(stores[1], data, total_samples=120, **options)]
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        seen = [i for batch in EvalLoader(stores[1], data, batch_size=8, tokens=5) for i in batch.sample_ids.tolist()]
        assert seen == list(range(50))
    split = cached(stores[1], str(tmp_path), 1.0)
    split.prefetch(range(6))  # type: ignore[attr-defined]
    split.wait()  # type: ignore[attr-defined]
    assert len(list(tmp_path.glob("*/*.tar"))) == 6


def test_the_next_shards_are_fetched_ahead(stores: tuple[Split, Split], tmp_path: Path) -> None:
    """Once a block, and in the order in which the epoch takes them."""
    order = Order(np.full(40, 3), 0, "id", 4)
    shards, after = order.shards_from(0, 10), order.shards_from(120, 1)
    assert (
        sorted(shards) == list(range(40))
        and order.shards_from(0, 2) == shards[:8]
        and order.shards_from(14, 2) == shards[4:12]
    )
    assert order.shards_from(119, 2) == list(dict.fromkeys(shards[36:] + after))
    loader = TrainLoader(
        stores[1], DataConfig(image_px=32, cache_dir=str(tmp_path)), seed=0, global_batch=4, rank=0, world_size=1,
        total_samples=40,
    )  # fmt: skip
    ahead = [spec.ahead for spec in loader._specs()]
    assert sorted(ahead[0]) == list(range(6)) and not any(ahead[1:])


def test_the_oldest_shards_go_beyond_the_limit(stores: tuple[Split, Split], tmp_path: Path) -> None:
    sizes = [fsspec.filesystem("memory").size(f"/cache-test/train-{i:06d}.tar") for i in range(6)]
    split = CachedSplit(stores[1], str(tmp_path), max(sizes) * 2.5)
    for shard in range(6):
        split.prefetch([shard])
        split.wait()
        time.sleep(0.02)
    assert sorted(p.name for p in tmp_path.glob("*/*.tar")) == ["train-000004.tar", "train-000005.tar"]


def test_a_cache_that_cannot_hold_what_is_read_at_a_time_is_refused(
    stores: tuple[Split, Split], tmp_path: Path
) -> None:
    data = DataConfig(image_px=32, cache_dir=str(tmp_path), cache_limit_gb=1e-5)
    options: dict[str, Any] = {"seed": 0, "global_batch": 4, "rank": 0, "world_size": 1}
    needed = sum(fsspec.filesystem("memory").size(f"/cache-test/train-{i:06d}.tar") for i in range(6)) / 1e9
    with pytest.raises(
        UsageError, match=r"cache_limit_gb is 1e-05.*Set data\.cache_limit_gb to ([\d.e-]+) or more"
    ) as said:
        TrainLoader(stores[1], data, **options)
    stated = float(str(said.value).split("cache_limit_gb to ")[1].split()[0])
    assert 0.5 * needed < stated <= needed
    TrainLoader(stores[0], dataclasses.replace(data, cache_dir=None), **options)


def test_unfinished_downloads_are_counted_and_removed(
    stores: tuple[Split, Split], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = CachedSplit(stores[1], str(tmp_path), 1e9)
    first.prefetch([0])
    first.wait()
    shard = next(tmp_path.glob("*/*.tar"))
    for name in (shard.name, "train-000003.tar"):
        shard.with_name(f".{name}.abc123.tmp").write_bytes(b"half of it")  # what a kill while writing leaves
    shard.unlink()
    with shard.with_name("train-000003.tar.lock").open("w") as held:  # another process is still writing this one
        fcntl.flock(held, fcntl.LOCK_EX)
        again = CachedSplit(stores[1], str(tmp_path), 1e9)
    assert again.num_leftovers == 1 and "removed 1 unfinished" in capsys.readouterr().err
    assert [path.name for path in tmp_path.glob("*/.*.tmp")] == [".train-000003.tar.abc123.tmp"]
    assert again.read(0).key == stores[0].read(0).key


def test_a_damaged_local_shard_is_fetched_again(stores: tuple[Split, Split], tmp_path: Path) -> None:
    split = CachedSplit(stores[1], str(tmp_path), 1e9)
    split.prefetch([0])
    split.wait()
    next(tmp_path.glob("*/*.tar")).write_bytes(b"cut by a full disk")
    assert split.read(3).key == stores[0].read(3).key
    split.wait()
    assert next(tmp_path.glob("*/*.tar")).stat().st_size > 1000


def test_a_full_disk_stops_no_reading(
    stores: tuple[Split, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(uri: str, data: bytes) -> None:
        raise storage.StoreError("cannot write: No space left on device")

    split = CachedSplit(stores[1], str(tmp_path), 1e9)
    monkeypatch.setattr(storage, "put", full)
    assert [split.read(i).key for i in range(9)] == [stores[0].read(i).key for i in range(9)]
    split.wait()
    assert "shard 0 was not downloaded (cannot write: No space left" in capsys.readouterr().err


@pytest.mark.parametrize("store", [False, True])
def test_a_cut_shard_is_noticed_at_open(tmp_path: Path, store: bool) -> None:
    local = make_dataset(tmp_path)
    if store:
        fsspec.filesystem("memory").put(local, "/cut-test", recursive=True)
    uri = "memory://cut-test" if store else local
    split = open_dataset(uri).split("train")
    check_whole(split)
    storage.put(f"{uri}/train-000002.tar", Path(local, "train-000002.tar").read_bytes()[:2000])
    with pytest.raises(DataError, match=r"train-000002\.tar has 2000 bytes and needs"):
        check_whole(split)
    storage.remove(f"{uri}/train-000002.tar")
    with pytest.raises(DataError, match=r"train-000002\.tar is missing"):
        check_whole(dataclasses.replace(split))
