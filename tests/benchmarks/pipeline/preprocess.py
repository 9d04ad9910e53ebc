"""`python -m tests.benchmarks preprocess`: what an image costs, stage by stage, beside the floor and beside other ways.

Data: `$FOCUSVIT_DATA/imagenet-sample/train` (320 full-size photos), or any ImageFolder by --source. CPU seconds are
read per thread, and the ways take turns in one run, so that other work on the machine moves all of them alike.
"""

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import cv2
import numpy as np
from fast_slic import Slic
from tqdm import tqdm

from pipeline.image.image import ImageConfig
from pipeline.image.png import encode_gray8
from pipeline.image.resize import reduce_area
from pipeline.io import storage
from pipeline.plan.columns import PlanRow
from pipeline.plan.plan import Plan, make_plan, save_plan
from pipeline.shards.build import ShardSpec, build_shard, make_sample
from pipeline.shards.dataset import plan_uri
from pipeline.shards.description import describe
from pipeline.shards.worker import run_shard
from pipeline.sources import Reader, detect
from pipeline.superpixels.segment import SuperpixelConfig, scale_for_segmentation
from pipeline.superpixels.slic import slic_class
from tests.benchmarks.pipeline.stages import stage_table
from tests.benchmarks.record import RecordConfig, begin, data_folder
from tests.benchmarks.report import Table

Way = Callable[[Sequence[PlanRow]], None]
_IMAGE, _SUPERPIXELS = ImageConfig(), SuperpixelConfig()


@dataclass(frozen=True, kw_only=True)
class BenchConfig(RecordConfig):
    """CPU time of preprocessing, per image and stage."""

    source: str = ""
    """An ImageFolder of photos; by default $FOCUSVIT_DATA/imagenet-sample."""
    rounds: int = 5
    """How often the ways take turns; medians over rounds are reported."""
    max_samples: int = 320
    """Take at most this many photos."""
    two_workers: bool = True
    """Compare two Ray workers with two bare processes."""

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.max_samples < 1:
            raise ValueError(f"--rounds is {self.rounds} and --max-samples {self.max_samples}; both must be at least 1")


def main(argv: list[str]) -> int:
    """Print the tables and save them under tests/benchmarks/results."""
    packages = ("fast-slic", "opencv-python-headless", "numba", "numpy", "scikit-image", "webdataset", "ray")
    config, record = begin("preprocess", BenchConfig, argv, packages)
    folder = data_folder("imagenet-sample", config.source, "--source")
    cv2.setNumThreads(1)
    source = detect(storage.resolve(folder), "train")
    plan = make_plan(source, "train", samples_per_shard=32, max_samples=config.max_samples)
    record.say(f"{plan.num_samples} images of {folder}, {config.rounds} rounds")
    record.facts["images"] = plan.num_samples
    reader = source.reader()
    record.add(_ways_table(plan, reader, config.rounds))
    record.add(*stage_table(plan.table.to_pylist()[:100], reader))
    if config.two_workers:
        record.add(_workers_table(plan, reader, config.rounds))
    return record.end()


def _ways_table(plan: Plan, source: Reader, rounds: int) -> Table:
    rows = plan.table.to_pylist()
    with tempfile.TemporaryDirectory() as folder:
        ways: dict[str, Way] = {
            "floor": partial(_floor, _resized_by_opencv, source),
            "floor with this pipeline's resizing": partial(_floor, _resized, source),
            "this pipeline": partial(_pipeline, source, folder),
            "straightforward": partial(_straightforward, slic_class(), source),
            "straightforward, fast-slic's default class": partial(_straightforward, Slic, source),
        }
        for way in ways.values():
            way(rows[:8])
        spent: dict[str, list[float]] = {name: [] for name in ways}
        for _ in tqdm(range(rounds), desc="ways", unit="round", disable=None):
            for name, way in ways.items():
                started = time.thread_time()
                way(rows)
                spent[name].append((time.thread_time() - started) / len(rows) * 1e3)
    values = {name: np.array(times) for name, times in spent.items()}
    over = {name: f"{np.median(times / values['floor']):.2f}" for name, times in values.items()}
    ours = {name: f"{np.median(times / values['this pipeline']):.2f}" for name, times in values.items()}
    table = [
        [name, f"{np.median(times):.2f}", f"{times.min():.2f} to {times.max():.2f}", over[name], ours[name]]
        for name, times in values.items()
    ]
    return Table(
        title="CPU time per image, ms (one thread)",
        columns=["way", "median of rounds", "range", "over the floor", "over this pipeline"],
        rows=table,
        note="Ratios are medians over rounds. Goals: this pipeline at most 1.15 of the floor; straightforward at least "
        "1.6 of this pipeline. Floor: read, OpenCV's JPEG decode and area resize to 256, reduce, one fast-slic call at "
        "the resolution in use, JPEG and PNG encode, bare in a loop. This pipeline: everything up to the tar on disk, "
        "with merge order, second decode, checksums, metadata and checks. Straightforward: OpenCV decode and area "
        "resize, SLIC of the full 256 px image at K = 256, JPEG and OpenCV's default PNG encode.",
    )


def _resized(bgr: np.ndarray) -> np.ndarray:
    scale = _IMAGE.target_px / min(bgr.shape[:2])
    if scale >= 1:
        return bgr
    return reduce_area(bgr, round(bgr.shape[0] * scale), round(bgr.shape[1] * scale))


def _resized_by_opencv(bgr: np.ndarray) -> np.ndarray:
    scale = min(1, _IMAGE.target_px / min(bgr.shape[:2]))
    return cv2.resize(bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _decoded(source: Reader, row: PlanRow) -> np.ndarray:
    data = source.read(row["file"], row["offset"], row["length"])
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    assert bgr is not None
    return bgr


def _floor(resize: Callable[[np.ndarray], np.ndarray], source: Reader, rows: Sequence[PlanRow]) -> None:
    for row in rows:
        bgr = resize(_decoded(source, row))
        cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _IMAGE.quality])
        small = scale_for_segmentation(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), _SUPERPIXELS)
        labels = slic_class()(num_components=_SUPERPIXELS.seed_regions, num_threads=1).iterate(small, 10)
        encode_gray8(labels.astype(np.uint8))


def _pipeline(source: Reader, folder: str, rows: Sequence[PlanRow]) -> None:
    for start in range(0, len(rows), 64):
        part = rows[start : start + 64]
        built = build_shard(part, lambda row: make_sample(row, source, _IMAGE, _SUPERPIXELS))
        storage.put(storage.join(folder, f"{start}.tar"), built.data)


def _straightforward(segmenter: Any, source: Reader, rows: Sequence[PlanRow]) -> None:
    for row in rows:
        bgr = _resized_by_opencv(_decoded(source, row))
        cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _IMAGE.quality])
        rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        labels = segmenter(num_components=_SUPERPIXELS.fine_regions, num_threads=1).iterate(rgb)
        cv2.imencode(".png", labels.astype(np.uint8))


def _workers_table(plan: Plan, source: Reader, rounds: int) -> Table:
    """Two workers of a running Ray against two processes that only run shards: what scheduling costs."""
    from pipeline.shards.executors import _start_ray, run_ray

    description = describe(plan, _IMAGE, _SUPERPIXELS)
    with tempfile.TemporaryDirectory() as folder:
        specs = []
        for copy in range(3):  # three data sets, so that a round lasts several seconds
            out = storage.join(folder, str(copy))
            save_plan(plan_uri(out, plan.split), plan, description)
            specs += [_task(plan, source, out, shard, description) for shard in range(plan.num_shards)]
        bare = _BareProcesses(2)
        _start_ray(None, 2)
        both = {"two bare processes": bare.run, "two Ray workers": lambda work: list(run_ray(work, workers=2))}
        for run in both.values():
            run(specs[: plan.num_shards])
        rates: dict[str, list[float]] = {name: [] for name in both}
        for _ in tqdm(range(rounds), desc="workers", unit="round", disable=None):
            for name, run in both.items():
                started = time.perf_counter()
                run(specs)
                rates[name].append(3 * plan.num_samples / (time.perf_counter() - started))
        bare.stop()
    first, second = (np.array(values) for values in rates.values())
    return Table(
        title="Two workers, images per second (wall clock)",
        columns=["way", "median of rounds", "range", "share"],
        rows=[
            ["two bare processes", f"{np.median(first):.0f}", f"{first.min():.0f} to {first.max():.0f}", "100 %"],
            [
                "two Ray workers",
                f"{np.median(second):.0f}",
                f"{second.min():.0f} to {second.max():.0f}",
                f"{np.median(second / first):.1%} (goal: at least 93 %)",
            ],
        ],
        note="Both are warm. The share is the median over rounds of the ratio within a round.",
    )


def _task(plan: Plan, source: Reader, out: str, shard: int, description: dict[str, Any]) -> ShardSpec:
    return ShardSpec(
        out=out,
        split=plan.split,
        shard=shard,
        source=source,
        image=_IMAGE,
        superpixels=_SUPERPIXELS,
        fingerprint=description["fingerprint"],
        golden=description["versions"]["golden"],
        skip_bad=False,
    )


class _BareProcesses:
    """Processes that run the shards they are given, one after the other, and say when they are done."""

    def __init__(self, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        pipes = [context.Pipe() for _ in range(count)]
        self._pipes = [near for near, _ in pipes]
        self._processes = [context.Process(target=_run_shards, args=(far,), daemon=True) for _, far in pipes]
        for process in self._processes:
            process.start()

    def run(self, specs: Sequence[ShardSpec]) -> None:
        for i, pipe in enumerate(self._pipes):
            pipe.send(list(specs[i :: len(self._pipes)]))
        for pipe in self._pipes:
            pipe.recv()

    def stop(self) -> None:
        for pipe, process in zip(self._pipes, self._processes):
            pipe.send(None)
            process.join(10)


def _run_shards(pipe: Connection) -> None:
    while (specs := pipe.recv()) is not None:
        for spec in specs:
            run_shard(spec)
        pipe.send(len(specs))
