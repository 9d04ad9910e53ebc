"""Training from an object store: an S3-speaking server on loopback, several processes on one cache, a kill between."""

import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from focusvit.data.loader import DataConfig, TrainLoader
from focusvit.data.shard_cache import CachedSplit
from pipeline.io import storage
from pipeline.shards.dataset import Split, open_dataset
from testkit.s3_server import s3_bucket
from testkit.tiny_shards import make_dataset

pytestmark = pytest.mark.server

READER = """
import sys, zlib
from focusvit.data.loader import DataConfig, TrainLoader
from pipeline.shards.dataset import open_dataset
data = DataConfig(image_px=32, map_px=16, cache_dir=sys.argv[2], loader_workers=int(sys.argv[3]))
loader = TrainLoader(open_dataset(sys.argv[1]).split("train"), data, seed=3, global_batch=7, rank=0, world_size=1,
                     tokens=5, total_samples=105)
print(*[zlib.crc32(batch.images.numpy().tobytes()) for batch in loader])
"""

# Writes half of a shard under the lock, as a download does, says so and waits to be killed.
TORN = """
import sys, time
from pathlib import Path
from focusvit.data import shard_cache
from pipeline.io import storage
from pipeline.shards.dataset import open_dataset
def half(uri, data):
    final = Path(uri)
    with final.with_name(f".{final.name}.0123456789ab{storage.TEMPORARY_SUFFIX}").open("wb") as file:
        file.write(data[: len(data) // 2])
        file.flush()
        print("half", flush=True)
        time.sleep(60)
storage.put = half
split = shard_cache.cached(open_dataset(sys.argv[1]).split("train"), sys.argv[2], 1.0)
split.prefetch([2])
split.wait()
"""


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[Split, Split]]:
    """The same data set on the disk and in the bucket of a server."""
    with s3_bucket(monkeypatch) as bucket:
        local = Path(make_dataset(tmp_path / "local"))
        for path in local.rglob("*"):
            if path.is_file():
                storage.put(f"{bucket}/set/{path.relative_to(local)}", path.read_bytes())
        yield open_dataset(str(local)).split("train"), open_dataset(f"{bucket}/set").split("train")


def _crcs(split: Split, **more: Any) -> list[str]:
    data = DataConfig(image_px=32, map_px=16, **more)
    loader = TrainLoader(split, data, seed=3, global_batch=7, rank=0, world_size=1, tokens=5, total_samples=105)
    return [str(zlib.crc32(batch.images.numpy().tobytes())) for batch in loader]


@pytest.mark.soak
def test_two_processes_share_one_cache(remote: tuple[Split, Split], tmp_path: Path) -> None:
    local, store = remote
    expected = _crcs(local)
    assert _crcs(store) == expected  # each sample by its range, no cache
    command = [sys.executable, "-c", READER, store.uri, str(tmp_path / "cache")]
    both = [subprocess.Popen([*command, workers], stdout=subprocess.PIPE, text=True) for workers in ("0", "1")]
    assert [process.communicate(timeout=200)[0].split() for process in both] == [expected, expected]
    assert all(process.returncode == 0 for process in both)
    shards = sorted((tmp_path / "cache").glob("*/*.tar"))
    for shard in shards:
        assert shard.read_bytes() == Path(local.uri, shard.name).read_bytes()
    assert len(shards) > 0 and not list((tmp_path / "cache").glob("*/.*.tmp"))


def test_a_kill_in_the_middle_of_a_download_loses_nothing(remote: tuple[Split, Split], tmp_path: Path) -> None:
    local, store = remote
    cache = tmp_path / "cache"
    process = subprocess.Popen([sys.executable, "-c", TORN, store.uri, str(cache)], stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "half\n"
    alive = CachedSplit(store, str(cache), 1e9)
    assert alive.num_leftovers == 0  # the writer lives
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    time.sleep(0.1)
    after = CachedSplit(store, str(cache), 1e9)
    assert after.num_leftovers == 1 and not list(cache.glob("*/.*.tmp"))
    after.prefetch(range(6))
    after.wait()
    assert len(list(cache.glob("*/*.tar"))) == 6
    assert [after.read(i).image for i in range(50)] == [local.read(i).image for i in range(50)]


def test_a_store_is_asked_for_many_samples_at_a_time(
    remote: tuple[Split, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One batch of eight from a store that answers after 0.2 s: together, not one after another."""
    _, store = remote
    real, running, most = storage.read_bytes, [0], [0]

    def slow(uri: str, start: int = 0, length: int | None = None) -> bytes:
        running[0] += 1
        most[0] = max(most[0], running[0])
        time.sleep(0.2)
        running[0] -= 1
        return real(uri, start, length)

    monkeypatch.setattr(storage, "read_bytes", slow)
    loader = TrainLoader(store, DataConfig(image_px=32), seed=0, global_batch=8, rank=0, world_size=1, total_samples=8)
    batch = next(iter(loader))
    assert most[0] >= 4 and len(batch) == 8
