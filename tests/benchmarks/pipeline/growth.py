"""How the cost of preprocessing grows, beside what is expected, and what one photo makes of whole data sets.

The first half of `bench growth`; `tests/benchmarks/model/growth.py` adds the model and prints both.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import cv2
import numpy as np

from focusvit.model.cost import time_calls
from pipeline.image.image import ImageConfig, prepare_image
from pipeline.io import storage
from pipeline.io.peak_memory import peak_bytes
from pipeline.plan.plan import make_plan
from pipeline.shards.build import make_sample
from pipeline.sources.detect import detect
from pipeline.sources.embedded import draw_shape
from pipeline.sources.source import Reader, SourceImage
from pipeline.superpixels.hierarchy import fit
from pipeline.superpixels.segment import SuperpixelConfig, segment_image
from tests.benchmarks.report import Table

_WHOLE = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Growth:
    """One cost at growing sizes: the sizes, CPU seconds at each (MB when `unit` says so), and the cost expected
    there.
    """

    what: str
    sizes: Sequence[float]
    seconds: Sequence[float]
    expected: Sequence[float]
    why: str
    unit: str = "ms"

    def row(self) -> list[str]:
        scale = 1e3 if self.unit == "ms" else 1
        return [
            self.what,
            f"{self.sizes[0]:g} .. {self.sizes[-1]:g}",
            f"{scale * self.seconds[0]:.2f} .. {scale * self.seconds[-1]:.2f} {self.unit}",
            f"{exponent(self.sizes, self.seconds):.2f}",
            f"{exponent(self.sizes, self.expected):.2f}",
            self.why,
        ]


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The p of cost ~ size^p: slope of the least-squares line through the logarithms."""
    x, y = np.log(np.asarray(sizes, float)), np.log(np.asarray(costs, float))
    return float(np.polyfit(x, y, 1)[0])


def cpu_seconds(calls: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Median CPU seconds of each call over rounds in which the calls take turns; one more round comes first."""
    seconds = time_calls({str(i): call for i, call in enumerate(calls)}, rounds, clock=time.process_time)
    return [statistics.median(times) for times in seconds.values()]


def preparing(rounds: int) -> list[Growth]:
    """Decode, resize and superpixels of photos-like scenes against their side."""
    sides = (256, 512, 1024, 2048)
    scenes = [draw_shape(np.random.default_rng(side), 4, side)[0] for side in sides]
    encoded = [cv2.imencode(".jpg", scene[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes() for scene in scenes]
    prepare = cpu_seconds([partial(prepare_image, data, ImageConfig()) for data in encoded], rounds)
    segment = cpu_seconds([partial(_times, 8, segment_image, scene, SuperpixelConfig()) for scene in scenes], rounds)
    return [
        Growth(
            what="read, decode, resize, store an image; side", sizes=sides, seconds=prepare,
            expected=[side**2 for side in sides], why="pixels; what is stored has one size, so small images cost more",
        ),
        Growth(
            what="superpixels of an image; side", sizes=sides, seconds=[s / 8 for s in segment],
            expected=[side**2 for side in sides], why="means over whole pixels read all of them, SLIC sees one size",
        ),
    ]  # fmt: skip


def fitting(rounds: int) -> Growth:
    tokens = (16, 49, 100, 196)
    scene = segment_image(draw_shape(np.random.default_rng(3), 4, 256)[0], SuperpixelConfig())
    calls = [partial(_times, 200, fit, *scene, _WHOLE, False, (112, 112), k) for k in tokens]
    seconds = [value / 200 for value in cpu_seconds(calls, rounds)]
    return Growth(what="fit of a stored map; K", sizes=tokens, seconds=seconds, expected=[1.0] * 4, why="pixels, not K")


def _times(count: int, call: Callable[..., object], *arguments: object) -> None:
    for _ in range(count):
        call(*arguments)


def working(rounds: int, images: int = 48) -> Growth:
    """Images per second of 1 and 2 processes that prepare images side by side: CPU seconds of the work itself."""
    scene = draw_shape(np.random.default_rng(8), 4, 512)[0]
    data = cv2.imencode(".jpg", scene[..., ::-1])[1].tobytes()
    workers = sorted({1, min(2, os.cpu_count() or 1)})
    seconds: dict[int, list[float]] = {count: [] for count in workers}
    with ProcessPoolExecutor(max(workers), mp_context=get_context("spawn")) as pool:
        list(pool.map(_prepare_many, [data] * max(workers), [2] * max(workers)))
        for _ in range(rounds):
            for count in workers:
                seconds[count].append(sum(pool.map(_prepare_many, [data] * count, [images] * count)))
    costs = [statistics.median(seconds[count]) for count in workers]
    return Growth(
        what=f"{images} images for each worker; workers", sizes=workers, seconds=costs, expected=workers,
        why="work is independent: more than 1 means that workers slow each other (caches, memory)",
    )  # fmt: skip


def _prepare_many(data: bytes, count: int) -> float:
    start = time.process_time()
    for _ in range(count):
        _, _, rgb = prepare_image(data, ImageConfig())
        segment_image(rgb, SuperpixelConfig())
    return time.process_time() - start


@dataclass(frozen=True, kw_only=True)
class ManyImages:
    """A source of `count` images in a thousand classes, of which only the list is read."""

    count: int
    root: str = "nowhere"
    kind: str = "generated list"
    classes: None = None

    def images(self) -> Iterator[SourceImage]:
        for i in range(self.count):
            name = f"n{i % 1000:08d}/n{i % 1000:08d}_{i}.JPEG"
            yield SourceImage(source=name, file=name, class_name=f"n{i % 1000:08d}")

    def reader(self) -> Reader:
        raise NotImplementedError("nothing is read")


def planning() -> tuple[Growth, Growth]:
    """CPU seconds and peak memory of making a plan against its rows, in fresh processes, less those of 100 rows."""
    sizes, base = (20_000, 80_000, 320_000), 100
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        (first, idle), *found = [pool.submit(_plan, count).result() for count in (base, *sizes)]
    seconds, memory = [spent - first for spent, _ in found], [peak - idle for _, peak in found]
    why = "each row is listed, hashed, sorted and stored"
    return (
        Growth(what="plan; images", sizes=sizes, seconds=seconds, expected=sizes, why=why),
        Growth(what="memory of the plan; images", sizes=sizes, seconds=memory, expected=sizes, why=why, unit="MB"),
    )


def _plan(count: int) -> tuple[float, float]:
    start = time.process_time()
    make_plan(ManyImages(count=count), "train")
    return time.process_time() - start, peak_bytes() / 1e6


@dataclass(frozen=True, kw_only=True)
class PerImage:
    """What one photo costs: CPU seconds to become a sample, bytes read, bytes stored, and its row in the driver."""

    cpu_s: float
    bytes_read: float
    bytes_stored: float
    plan_cpu_s: float
    plan_bytes: float

    def rows(self) -> list[list[str]]:
        found = []
        for title, images in (("ImageNet-1k, train", 1_281_167), ("a billion images", 10**9)):
            hours = images * self.cpu_s / 3600
            found.append(
                [title, f"{hours:,.1f}", f"{hours / 1000:,.2f}", f"{images * self.bytes_read / 1e12:,.2f}",
                 f"{images * self.bytes_stored / 1e12:,.2f}", f"{images * self.bytes_read / 1.25e9 / 3600:,.1f}",
                 f"{images * self.plan_cpu_s / 60:,.1f}", f"{images * self.plan_bytes / 1e9:,.1f}"]
            )  # fmt: skip
        return found


def per_image(folder: str, plans: tuple[Growth, Growth], count: int = 100) -> PerImage:
    """Measured on photos of full size."""
    source = detect(storage.resolve(folder), "train")
    rows = make_plan(source, "train", samples_per_shard=32, max_samples=count).table.to_pylist()
    reader = source.reader()
    make_sample(rows[0], reader, ImageConfig(), SuperpixelConfig())  # compiled before the clock runs
    start = time.process_time()
    samples = [make_sample(row, reader, ImageConfig(), SuperpixelConfig()) for row in rows]
    spent = (time.process_time() - start) / len(rows)
    read = [len(reader.read(row["file"], row["offset"], row["length"])) for row in rows]
    stored = [sum(512 + -(-len(member) // 512) * 512 for member in sample.values()) for sample in samples]
    cost, memory = plans
    return PerImage(
        cpu_s=spent, bytes_read=statistics.mean(read), bytes_stored=statistics.mean(stored),
        plan_cpu_s=cost.seconds[-1] / cost.sizes[-1], plan_bytes=1e6 * memory.seconds[-1] / memory.sizes[-1],
    )  # fmt: skip


def calculator(each: PerImage) -> Table:
    columns = (
        "data set", "core-hours", "hours on 1,000 cores", "TB read", "TB stored", "hours to read at 10 Gbit/s",
        "driver: minutes to plan", "driver: GB for the plan",
    )  # fmt: skip
    note = (
        f"Computed from what one photo costs here: {1e3 * each.cpu_s:.2f} ms of CPU, {each.bytes_read / 1e3:.0f} KB "
        f"read, {each.bytes_stored / 1e3:.0f} KB stored; in the driver {1e6 * each.plan_cpu_s:.1f} us and "
        f"{each.plan_bytes:.0f} bytes. At a billion the plan in the driver's memory gives way first: "
        "preprocess such a source in parts. "
        "At how many CPUs scheduling, network or storage give way: `python -m tests.benchmarks scale`."
    )
    return Table(title="From one photo to whole data sets", columns=columns, rows=each.rows(), note=note)
