"""Local shards are opened once and read ahead in their order; a file that was put in a shard's place is read."""

import dataclasses
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from focusvit.data import open_shards
from focusvit.data.config import DataConfig
from focusvit.data.loader import TrainLoader, _with_the_next
from focusvit.data.open_shards import OpenShards
from focusvit.data.reader import BatchSpec
from focusvit.data.shard_cache import CachedSplit
from pipeline.io import storage
from pipeline.shards.dataset import open_dataset
from testkit.tiny_shards import make_dataset


def test_a_training_opens_each_shard_once_and_fetches_ahead_in_order(tmp_path: Path, monkeypatch: Any) -> None:
    split = open_dataset(make_dataset(tmp_path, splits={"train": 50})).split("train")
    opened, fetched, really = Counter[str](), list[tuple[int, int]](), open_shards.open_regular
    shard_of: dict[int, int] = {}

    def opening(place: str) -> int:
        opened[place] += 1
        descriptor = really(place)
        shard_of[descriptor] = int(place[-10:-4])
        return descriptor

    monkeypatch.setattr(open_shards, "open_regular", opening)
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, start, length, advice: fetched.append((shard_of[fd], start)))
    data = DataConfig(image_px=16, check_shards="none")
    loader = TrainLoader(split, data, seed=0, global_batch=10, rank=0, world_size=1, total_samples=100)
    batches = list(loader)
    assert len(opened) == split.info.num_shards > 1 and set(opened.values()) == {1}
    later = [np.sort(batch.sample_ids.numpy()) for batch in batches[1:]]
    wanted = [(int(row["shard"]), int(row["offset"])) for ids in later for row in split.index[ids]]
    assert fetched == wanted  # the samples of the next batch, in the order in which they lie on the disk


def test_the_spec_names_what_the_same_worker_makes_next() -> None:
    specs = [BatchSpec(np.array([i]), np.zeros(1, int), None) for i in range(5)]
    found = list(_with_the_next(specs, 2))
    assert [spec.sample_ids.tolist() for spec in found] == [[0], [1], [2], [3], [4]]
    assert [spec.soon.tolist() for spec in found] == [[2], [3], [4], [], []]


def test_a_replaced_file_is_read_and_few_stay_open(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(open_shards, "_TRUSTED_S", 0.0)
    monkeypatch.setattr(open_shards, "_MOST_OPEN", 3)
    files, places = OpenShards(), [str(tmp_path / str(i)) for i in range(5)]
    for i, place in enumerate(places):
        storage.put(place, b"old%d" % i)
        assert files.read(place, 0, 9) == b"old%d" % i
    assert len(files._files) == 3
    storage.put(places[4], b"new")
    assert files.read(places[4], 1, 9) == b"ew" and files.read(places[0], 3, 9) == b"0"
    Path(places[4]).unlink()
    with pytest.raises(FileNotFoundError):
        files.read(places[4], 0, 1)
    files.read_ahead([(places[4], 0, 1)])  # whoever reads says what is wrong
    descriptors = [descriptor for descriptor, _ in files._files.values()]
    del files
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_a_program_that_ends_with_shards_open_says_nothing(tmp_path: Path) -> None:
    code = f"import focusvit\nsamples = focusvit.ShardDataset({make_dataset(tmp_path)!r}, tokens=9)\nsamples[0]"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_a_cache_keeps_the_mounted_shards_open_and_not_its_own(tmp_path: Path) -> None:
    """A shard that is deleted to make room must not stay on the disk because somebody has it open."""
    split = open_dataset(make_dataset(tmp_path / "mounted")).split("train")
    kept, asked = CachedSplit(split, str(tmp_path / "cache"), 1e9), list[str]()

    def read(place: str, start: int, length: int) -> bytes:
        asked.append(place)
        return storage.read_bytes(place, start, length)

    first = kept.read(0, read)
    kept.wait()
    assert asked == [split.shard_uri(0)] and kept.read(0, read).image == first.image and len(asked) == 1


def test_views_are_made_where_the_batch_lies(tmp_path: Path) -> None:
    """The planes of an unfinished batch are still beside each other, as torch's own stack has them."""
    split = open_dataset(make_dataset(tmp_path)).split("train")
    data = DataConfig(image_px=16, map_px=16)
    options: dict[str, Any] = {"seed": 0, "global_batch": 6, "rank": 0, "world_size": 1, "total_samples": 6}
    for changed in (data, dataclasses.replace(data, colour="randaugment")):
        (batch,) = TrainLoader(split, changed, **options)
        images = batch.finished().images
        assert batch.images.permute(0, 2, 3, 1).is_contiguous() and images.is_contiguous()
        assert (images == batch.images).all() and len({image.numpy().tobytes() for image in images}) == 6
