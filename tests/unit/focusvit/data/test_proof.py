"""No damaged sample is learned from or scored silently: bytes, places and classes are compared when they are read."""

import dataclasses
import hashlib
import io
import json
import os
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from focusvit.data.config import DataConfig
from focusvit.data.loader import EvalLoader, TrainLoader
from focusvit.data.shard_cache import CachedSplit
from focusvit.predict.segmenters import file_batches
from focusvit.predict.view import ViewConfig
from pipeline.care.check import read_samples
from pipeline.errors import DataError
from pipeline.image.image import ImageConfig
from pipeline.io import storage
from pipeline.shards.dataset import Split, index_uri, open_dataset, sidecar_uri
from pipeline.shards.proof import prove_index, read_proven
from pipeline.shards.sample import check_merges
from pipeline.shards.sidecar import sidecar_bytes
from pipeline.superpixels.segment import SuperpixelConfig
from testkit.tiny_shards import make_dataset
from transfer.dense.data import DenseConfig, load_dense
from transfer.tasks.subset import write_subset

DATA = DataConfig(image_px=32, map_px=16)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return Path(make_dataset(tmp_path / "set", splits={"train": 12, "val": 8}, per_shard=6, dense=True))


def _split(data: Path, name: str) -> Split:
    return open_dataset(str(data)).split(name)


def _train(split: Split, check: Any = "local") -> Any:
    config = dataclasses.replace(DATA, check_shards=check)
    return list(TrainLoader(split, config, seed=0, global_batch=4, rank=0, world_size=1, total_samples=12, tokens=6))


def _score(split: Split) -> Any:
    return list(EvalLoader(split, DATA, batch_size=4, tokens=6))


def _change_pixels(place: Path) -> None:
    """Zero some bytes in the middle of the first JPEG: it decodes, to other pixels."""
    whole = place.read_bytes()
    image = read_samples(whole, "shard")[0][2]["jpg"]
    start = whole.index(image) + len(image) // 2
    for size in range(1, 40):
        half = whole[:start] + bytes(size) + whole[start + size :]
        other = read_samples(half, "shard")[0][2]["jpg"]
        seen = cv2.imdecode(np.frombuffer(other, np.uint8), cv2.IMREAD_COLOR)
        if seen is not None and (seen != cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)).any():
            place.write_bytes(half)
            return
    raise AssertionError("no change of pixels found")


def test_a_jpeg_that_decodes_to_other_pixels_is_refused(data: Path) -> None:
    for name, use in (("train", _train), ("val", _score)):
        assert use(_split(data, name)), "sound shards pass"
        _change_pixels(data / f"{name}-000000.tar")
        with pytest.raises(DataError, match=rf"{name}-000000\.tar has other bytes than were written"):
            use(_split(data, name))
    assert len(_train(_split(data, "train"), "none")) == 3, "left to verify when the user says so"


def test_every_way_of_scoring_compares_the_hash(data: Path, tmp_path: Path) -> None:
    split = _split(data, "val")
    dense = DenseConfig(num_classes=5, num_regions=6)
    view = ViewConfig(
        image_px=32, map_px=16, crop_fraction=0.875, tokens=6, image=ImageConfig(), superpixels=SuperpixelConfig()
    )
    assert load_dense(split, 0, dense) and next(iter(file_batches(split, view, 4)))
    _change_pixels(data / "val-000000.tar")
    fresh = _split(data, "val")
    for use in (
        lambda: load_dense(fresh, 0, dense),
        lambda: next(iter(file_batches(fresh, view, 4))),
        lambda: read_proven(fresh, 0),
        lambda: write_subset(open_dataset(str(data)), {"train": [(fresh, np.arange(3))]}, str(tmp_path / "part")),
    ):
        with pytest.raises(DataError, match="has other bytes than were written"):
            use()
    assert load_dense(fresh, 7, dense), "the other shard is sound"


def test_a_shard_is_hashed_once_in_a_process_and_again_when_it_changes(data: Path, monkeypatch: Any) -> None:
    calls: list[str] = []
    whole = hashlib.file_digest

    def counted(file: Any, name: str) -> Any:
        calls.append(name)
        return whole(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    split = _split(data, "val")
    _score(split), _score(split), _score(_split(data, "val"))
    assert len(calls) == 2  # shards
    os.utime(data / "val-000001.tar", ns=(1, 1))
    _score(split)
    assert len(calls) == 3


def test_a_class_that_differs_from_the_index_is_refused(data: Path) -> None:
    place = data / "train-000000.tar"
    whole = place.read_bytes()
    (key, _, members) = read_samples(whole, "shard")[1]
    assert members["cls"] == b"1"
    start = whole.index(f"{key}.cls".encode()) + 512
    place.write_bytes(whole[:start] + b"2" + whole[start + 1 :])
    for check in ("none", "local"):
        with pytest.raises(DataError, match=r"states class 2, and the index of the split 1|other bytes"):
            _train(_split(data, "train"), check)
    with pytest.raises(DataError, match=f"sample {key} of the shard {place} states class 2"):
        _split(data, "train").read(1)


@pytest.mark.parametrize("field", ["class_id", "length"])
def test_an_index_that_differs_from_the_sidecars_is_refused(data: Path, field: str) -> None:
    place = Path(index_uri(str(data), "val"))
    index = np.load(io.BytesIO(place.read_bytes()))
    last = 5  # of the first shard, so that what follows it stays adjacent
    index[field][last] = 3 - index[field][last] if field == "class_id" else index[field][last] + 512
    np.save(place, index)
    split = _split(data, "val")
    with pytest.raises(DataError, match=f"another {field} in the index"):
        prove_index(split)
    with pytest.raises(DataError, match=f"another {field} in the index"):
        _score(split)
    with pytest.raises(DataError):
        split.read(last)


def test_a_shard_without_a_sound_sidecar_is_not_scored(data: Path) -> None:
    place = Path(sidecar_uri(str(data), "val", 1))
    content = json.loads(place.read_bytes())
    del content["sidecar_sha256"]
    for change in (lambda: place.unlink(), lambda: place.write_bytes(sidecar_bytes({**content, "fingerprint": "g"}))):
        change()
        with pytest.raises(DataError, match=r"val-000001\.tar has no sound sidecar"):
            _score(_split(data, "val"))


def _with_merges(data: Path, change: Any) -> str:
    """The first training shard with another merge order in its second sample; its key."""
    place = data / "train-000000.tar"
    whole = place.read_bytes()
    key, _, members = read_samples(whole, "shard")[1]
    order = members["merges.npy"]
    merges = np.load(io.BytesIO(order)).copy()
    change(merges)
    start = whole.index(order)
    place.write_bytes(whole[:start] + order[:128] + merges.tobytes() + whole[start + len(order) :])
    return key


MERGES = {
    "a region joins itself": lambda m: m.__setitem__((0, 0), m[0, 1]),
    "a region goes twice": lambda m: m.__setitem__((0, 1), m[1, 1]),
    "the smaller id goes": lambda m: m.__setitem__(3, m[3, ::-1].copy()),
    "a region that has gone": lambda m: m.__setitem__((-1, 0), m[0, 1]),
    "no such region": lambda m: m.__setitem__((0, 1), 255 if len(m) < 255 else 0),
}


@pytest.mark.parametrize("change", MERGES.values(), ids=MERGES)
def test_a_damaged_merge_order_names_sample_and_shard(data: Path, change: Any) -> None:
    key = _with_merges(data, change)
    said = re.escape(f"in the shard {data / 'train-000000.tar'}: sample {key}: its member merges.npy cannot be read")
    with pytest.raises(DataError, match=said):
        _train(_split(data, "train"), "none")


def test_the_law_of_merges_equals_its_slow_reading() -> None:
    def slow(merges: np.ndarray) -> bool:
        alive = set(range(len(merges) + 1))
        for a, b in merges.tolist():
            if not a < b or a not in alive or b not in alive:
                return False
            alive.discard(b)
        return True

    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(3000):
        merges = rng.integers(0, 4, (3, 2)).astype(np.uint8)
        try:
            check_merges(merges)
            sound = True
        except ValueError:
            sound = False
        assert sound == slow(merges), merges
        seen.add(sound)
    assert seen == {True, False}
    check_merges(np.empty((0, 2), np.uint8))


def test_a_shard_that_comes_damaged_from_a_store_is_never_used(data: Path, tmp_path: Path) -> None:
    uri = f"memory://proof-{tmp_path.name}"
    for name in storage.list_names(str(data)):
        if (data / name).is_file():
            storage.put(f"{uri}/{name}", (data / name).read_bytes())
    for path in (data / ".focusvit").rglob("*"):
        if path.is_file():
            storage.put(f"{uri}/{path.relative_to(data)}", path.read_bytes())
    _change_pixels(data / "val-000000.tar")
    storage.put(f"{uri}/val-000000.tar", (data / "val-000000.tar").read_bytes())
    split = open_dataset(uri).split("val")
    with pytest.raises(DataError, match="has other bytes than were written"):
        _score(split)
    cache = CachedSplit(split, str(tmp_path / "cache"), 1e9)
    cache.prefetch([0, 1])
    cache.wait()
    with pytest.raises(DataError, match="has other bytes than were written"):
        cache.read(0)
    assert cache.read(7).key
