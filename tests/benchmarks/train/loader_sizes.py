"""Memory and opening of a loader against the size of its data set: for `python -m tests.benchmarks loader`."""

import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from pipeline.io import storage
from pipeline.shards.dataset import DATASET_FILE, INDEX_DTYPE, index_uri, open_dataset, shard_name
from tests.benchmarks.report import ROOT, Table

IMAGENET = (1_281_167, 1282)

_OPEN = """
import sys, time
import psutil
from focusvit.data.order import Order
from pipeline.shards.dataset import open_dataset
wall, cpu = time.perf_counter(), time.process_time()
before = psutil.Process().memory_info().rss
split = open_dataset(sys.argv[1]).split("train")
start, count = 40 * split.num_samples, min(1024, split.num_samples)
ids = Order(split.shard_sizes, 0, split.identity).sample_ids(start, start + count)
assert len(set(ids.tolist())) == count
print(time.perf_counter() - wall, time.process_time() - cpu, psutil.Process().memory_info().rss - before)
"""

_EPOCH = """
import sys
import psutil, torch
from focusvit.data.config import DataConfig
from focusvit.data.loader import TrainLoader
from pipeline.shards.dataset import open_dataset
torch.set_num_threads(1)
split, seen, peak = open_dataset(sys.argv[1]).split("train"), 0, 0
data = DataConfig(image_px=224, map_px=112, check_shards="none")  # links to shards have no sidecars
loader = TrainLoader(split, data, seed=0, global_batch=64, rank=0, world_size=1,
                     tokens=64, total_samples=int(sys.argv[2]))
for batch in loader:
    peak = max(peak, psutil.Process().memory_info().rss)
print(peak)
"""


def grown(data: str, folder: str, times: int) -> str:
    """The data set `times` over: links to its shards under new numbers, and an index to match."""
    dataset = open_dataset(data)
    split, place = dataset.split("train"), Path(folder, f"times-{times}")
    shards = split.info.num_shards
    place.mkdir()
    for copy in range(times):
        for shard in range(shards):
            target = storage.join(data, shard_name("train", shard))
            (place / shard_name("train", copy * shards + shard)).symlink_to(target)
    index = np.tile(split.index, times)
    index["shard"] += np.repeat(np.arange(times) * shards, split.num_samples).astype(np.int32)
    _write(place, data, index, shards * times)
    return str(place)


def imagenet_sized(data: str, folder: str) -> str:
    """A data set that states 1,281,167 samples in 1282 shards. It can be opened and ordered, not read."""
    place = Path(folder, "imagenet-sized")
    place.mkdir()
    num_samples, num_shards = IMAGENET
    index = np.zeros(num_samples, INDEX_DTYPE)
    index["shard"] = np.arange(num_samples) // 1000
    index["length"] = 40_960
    index["offset"] = np.arange(num_samples) % 1000 * 40_960
    _write(place, data, index, num_shards)
    return str(place)


def _write(place: Path, data: str, index: np.ndarray, num_shards: int) -> None:
    content = json.loads(Path(data, DATASET_FILE).read_text())
    info = dataclasses.replace(
        open_dataset(data).splits["train"], num_samples=len(index), num_shards=num_shards, identity=str(len(index))
    )
    content["splits"] = {"train": dataclasses.asdict(info)}
    storage.put_json(str(place / DATASET_FILE), content)
    buffer = io.BytesIO()
    np.save(buffer, index)
    storage.put(index_uri(str(place), "train"), buffer.getvalue())


def sizes_table(data: str, folder: str, samples: int = 3200, rounds: int = 3) -> Table:
    """Peak memory of a loader that reads `samples` samples, and the time from nothing to the ids of a batch."""
    places = {f"{times}x": grown(data, folder, times) for times in (1, 10)}
    places["ImageNet-1k's size"] = imagenet_sized(data, folder)
    rows = []
    for name, place in places.items():
        opened = np.array([_asked(_OPEN, place) for _ in range(rounds)])
        peak = "" if "x" not in name else f"{_asked(_EPOCH, place, str(samples))[0] / 2**20:.0f}"
        wall_s, cpu_s, rss = np.median(opened, 0)
        count = open_dataset(place).splits["train"].num_samples
        rows.append([name, f"{count:,}", peak, f"{wall_s:.3f}", f"{cpu_s:.3f}", f"{rss / 2**20:.0f}"])
    return Table(
        title="By size of the data set",
        columns=("data set", "samples", f"peak MiB while reading {samples} samples", "open and seek to epoch 40, s",
                 "CPU s", "MiB this adds"),
        rows=rows,
        note="In a fresh process after its imports: dataset.json, the index (20 bytes a sample), the order of an "
        "epoch, 1024 ids of it. Goal: under 1 s for ImageNet-1k's size, and memory flat but for the index.",
    )  # fmt: skip


def _asked(code: str, *arguments: str) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return [float(part) for part in done.stdout.split()]
