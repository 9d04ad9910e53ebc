"""`python -m tests.benchmarks scale`: can one driver keep a large cluster busy, and what would give way first?

The executor that builds shards schedules tasks that only sleep, on more logical CPUs than the machine has. So its own
cost shows: driver time per task, the share of time that CPUs had a task, and object store use.
"""

import os
import time
from dataclasses import dataclass
from typing import Any

from pipeline.image.image import ImageConfig
from pipeline.shards.build import ShardSpec
from pipeline.shards.executors import run_ray
from pipeline.sources.readers import FileReader
from pipeline.superpixels.segment import SuperpixelConfig
from tests.benchmarks.pipeline.plan import plan_table
from tests.benchmarks.record import RecordConfig, begin
from tests.benchmarks.report import Table

_IMAGES_PER_TASK = 1000
_MB_READ, _MB_WRITTEN = 110.0, 43.0  # per task: 1000 ImageNet photos of 110 KB, stored at short side 256


@dataclass(frozen=True, kw_only=True)
class ScaleConfig(RecordConfig):
    """Tasks that sleep, on logical CPUs of a Ray inside this process."""

    tasks: int = 1300
    """As many as ImageNet has shards of 1000."""
    cpus: int = 20
    """Logical CPUs; each is one Ray worker process of about 250 MB."""
    sleep_s: float = 5.0
    """A real shard takes about 10 s of one core; shorter sleeps ask more of the driver."""
    plan_images: int = 1_281_167
    """Rows of the listing that is planned."""
    scan_classes: int = 100
    """Classes of 1281 images in the tar of tars whose headers are read (a sparse file of 4 KB for each image)."""
    ms_per_image: float = 8.0
    """CPU time of an image, as `python -m tests.benchmarks preprocess` prints it; the limits are computed from it."""
    network_mb_per_s: float = 1250.0
    """Bandwidth between storage and cluster, in each direction (10 GbE)."""
    storage_mb_per_s: float = 2000.0
    """What the storage reads and writes in all."""

    def __post_init__(self) -> None:
        if self.cpus < 1 or self.sleep_s <= 0 or self.ms_per_image <= 0:
            raise ValueError("--cpus, --sleep-s and --ms-per-image must be more than 0")
        if self.plan_images < 1 or self.scan_classes < 1:
            raise ValueError("--plan-images and --scan-classes must be at least 1")
        if self.tasks < 4 * self.cpus:
            raise ValueError(f"--tasks is {self.tasks}; it must be at least 4 for each of the {self.cpus} CPUs")


def sleep_task(task: ShardSpec) -> dict[str, Any]:
    """Work that takes no CPU: the sleep is carried in the task's split name."""
    started = time.time()
    time.sleep(float(task.split))
    return {"worker": os.getpid(), "started": started, "ended": time.time()}


def measure(config: ScaleConfig) -> dict[str, float]:
    """Schedule the tasks and return what the executor cost, once all workers have started."""
    started, spans, marks, most_used, settled = time.perf_counter(), [], [], 0.0, 0
    workers: dict[int, float] = {}
    tasks = [_task(shard, config.sleep_s) for shard in range(config.tasks)]
    for result in run_ray(tasks, workers=config.cpus, work=sleep_task):
        spans.append((result["started"], result["ended"]))
        marks.append(time.process_time())
        if workers.setdefault(result["worker"], result["started"]) == result["started"]:
            settled = len(marks)  # a new worker process: its start is not the scheduler's cost
        if len(spans) % 50 == 1:
            most_used = max(most_used, object_store_used())
    settled = min(settled, len(marks) - 2)
    return {
        "wall_s": time.perf_counter() - started,
        "busy_share": busy_share(spans, config.cpus, max(workers.values())),
        "busy_share_from_first": busy_share(spans, config.cpus, min(start for start, _ in spans)),
        "start_s": max(workers.values()) - min(start for start, _ in spans),
        "driver_ms_per_task": (marks[-1] - marks[settled]) / (len(marks) - 1 - settled) * 1e3,
        "object_store_mb": most_used / 1e6,
    }


def object_store_used() -> float:
    """Bytes in the object stores of the running cluster."""
    import ray

    total, free = ray.cluster_resources(), ray.available_resources()
    return total.get("object_store_memory", 0.0) - free.get("object_store_memory", 0.0)


def busy_share(spans: list[tuple[float, float]], cpus: int, begin: float) -> float:
    """Share of the time of `cpus` in which a task ran, from `begin` (all had one) to when the last task started."""
    end = max(start for start, _ in spans)
    running = sum(max(0.0, min(stop, end) - max(start, begin)) for start, stop in spans)
    return running / (cpus * (end - begin))


def _task(shard: int, sleep_s: float) -> ShardSpec:
    return ShardSpec(
        out="",
        split=str(sleep_s),
        shard=shard,
        source=FileReader(""),  # nothing is read
        image=ImageConfig(),
        superpixels=SuperpixelConfig(),
        fingerprint="",
        golden="",
        skip_bad=False,
    )


def limits(config: ScaleConfig, driver_ms_per_task: float) -> list[tuple[str, float]]:
    """(what, number of CPUs at which it is saturated)."""
    task_s = config.ms_per_image * _IMAGES_PER_TASK / 1e3
    busiest = max(_MB_READ, _MB_WRITTEN)
    return [
        ("driver (its CPU time per task)", task_s * 1e3 / driver_ms_per_task),
        (f"network of {config.network_mb_per_s:.0f} MB/s each way", config.network_mb_per_s * task_s / busiest),
        (f"storage of {config.storage_mb_per_s:.0f} MB/s", config.storage_mb_per_s * task_s / (_MB_READ + _MB_WRITTEN)),
    ]


def main(argv: list[str]) -> int:
    """Print the tables and save them under tests/benchmarks/results."""
    config, record = begin("scale", ScaleConfig, argv, ("ray", "numpy"))
    record.say(f"{config.tasks} tasks of {config.sleep_s} s on {config.cpus} logical CPUs")
    record.add(plan_table(config.plan_images, config.scan_classes))
    found = measure(config)
    busy = {
        "CPUs busy": f"{found['busy_share']:.1%}",
        "from the first start": f"{found['busy_share_from_first']:.1%}",
        "workers started in s": round(found["start_s"], 1),
        "driver CPU ms per task": round(found["driver_ms_per_task"], 2),
        "object store MB": round(found["object_store_mb"], 1),
        "wall s": round(found["wall_s"], 1),
    }
    record.add(
        Table(
            title=f"{config.tasks} tasks that sleep {config.sleep_s} s on {config.cpus} logical CPUs",
            columns=tuple(busy),
            rows=[tuple(busy.values())],
            note=(
                "Busy: the share of the CPUs' time in which a task ran, from when every worker process had begun its "
                "first to the last start. Next to it the same from the very first start on: worker processes load "
                "Python and libraries then, which depends on the machine's real cores and not on the scheduling."
            ),
        ),
        Table(
            title="CPUs at which each part would be saturated",
            columns=("part", "CPUs"),
            rows=[(what, int(cpus)) for what, cpus in limits(config, found["driver_ms_per_task"])],
            note=f"At {config.ms_per_image} ms of CPU an image and {_IMAGES_PER_TASK} images a task, computed.",
        ),
    )
    return record.end()
