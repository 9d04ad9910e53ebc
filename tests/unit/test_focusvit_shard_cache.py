"""The cache of an object store: the same samples, a bounded size, nothing half-downloaded taken for good."""

import dataclasses
import pickle
import time
from pathlib import Path

import fsspec
import pytest
from testkit.tiny_shards import make_dataset

from focusvit.loader import DataConfig, EvalLoader
from focusvit.shard_cache import CachedSplit, cached, check_whole
from pipeline.dataset import Split, open_dataset
from pipeline.errors import DataError


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Split, Split]:
    """The same data set on the disk and in a store."""
    local = make_dataset(tmp_path_factory.mktemp("data"))
    fsspec.filesystem("memory").put(local, "/cache-test", recursive=True)
    return open_dataset(local).split("train"), open_dataset("memory://cache-test").split("train")


def test_a_store_gives_the_same_samples_through_the_cache(stores: tuple[Split, Split], tmp_path: Path) -> None:
    local, remote = stores
    split = cached(remote, str(tmp_path), 1.0)
    assert isinstance(split, CachedSplit) and cached(local, str(tmp_path), 1.0) is local
    assert split.num_samples == local.num_samples and split.identity == local.identity
    for sample in (0, 17, 49, 3):
        ours, theirs = split.read(sample), local.read(sample)
        assert ours.key == theirs.key and ours.image == theirs.image
    assert len(list(tmp_path.glob("*/*.tar"))) == 3  # shards of the four samples, not all six
    again = pickle.loads(pickle.dumps(split))
    assert again.read(5).key == local.read(5).key


def test_the_loader_reads_a_store(stores: tuple[Split, Split], tmp_path: Path) -> None:
    data = DataConfig(image_px=32, cache_dir=str(tmp_path))
    seen = [i for batch in EvalLoader(stores[1], data, batch_size=8, tokens=5) for i in batch.sample_ids.tolist()]
    assert seen == list(range(50))
    assert len(list(tmp_path.glob("*/*.tar"))) == 6


def test_the_oldest_shards_go_beyond_the_limit(stores: tuple[Split, Split], tmp_path: Path) -> None:
    sizes = [fsspec.filesystem("memory").size(f"/cache-test/train-{i:06d}.tar") for i in range(6)]
    split = cached(stores[1], str(tmp_path), (max(sizes) * 2.5) / 1e9)
    for sample in range(0, 50, 9):
        split.read(sample)
        time.sleep(0.02)
    assert sorted(p.name for p in tmp_path.glob("*/*.tar")) == ["train-000004.tar", "train-000005.tar"]


def test_a_torn_download_is_not_taken(stores: tuple[Split, Split], tmp_path: Path) -> None:
    split = cached(stores[1], str(tmp_path), 1.0)
    split.read(0)
    shard = next(tmp_path.glob("*/*.tar"))
    shard.rename(shard.with_name(f".{shard.name}.abc.tmp"))  # what a kill while writing leaves
    assert split.read(0).key == stores[0].read(0).key


def test_a_cut_shard_is_noticed_at_open(tmp_path: Path) -> None:
    split = open_dataset(make_dataset(tmp_path)).split("train")
    check_whole(split)
    shard = tmp_path / "train-000002.tar"
    shard.write_bytes(shard.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"train-000002\.tar has 2000 bytes and needs"):
        check_whole(split)
    shard.unlink()
    with pytest.raises(DataError, match=r"train-000002\.tar is missing"):
        check_whole(dataclasses.replace(split))
