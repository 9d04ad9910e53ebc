"""What planning costs the driver: a listing of ImageNet's size, and the headers of a tar of tars.

Part of `bench scale`. Each is measured in a process of its own, so that its peak of memory is its own.
"""

import multiprocessing
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pipeline.image.image import ImageConfig
from pipeline.io import tar
from pipeline.io.peak_memory import peak_bytes
from pipeline.plan.plan import make_plan, save_plan
from pipeline.shards.description import describe
from pipeline.sources import Source, SourceImage, detect
from pipeline.superpixels.segment import SuperpixelConfig
from tests.benchmarks.report import Table

_PER_CLASS, _IMAGE_BYTES = 1281, 110_000  # as ImageNet's classes


@dataclass(kw_only=True)
class Listing(Source):
    """As many rows as ImageNet has, without a file behind them."""

    num_rows: int
    kind: str = "a listing"

    def _list(self) -> Iterator[SourceImage]:
        for number in range(self.num_rows):
            name = f"n{number % 1000:08d}"
            path = f"{name}/{name}_{number}.JPEG"
            yield SourceImage(path, path, class_name=name)


def plan_table(num_rows: int, scan_classes: int) -> Table:
    """Seconds and memory of planning `num_rows` listed images, and those of `scan_classes` classes in a tar of tars."""
    with tempfile.TemporaryDirectory() as folder:
        archive = str(Path(folder) / "train.tar")
        num_bytes = write_sparse_archive(archive, scan_classes)
        rows = [
            _row("rows of a listing", _in_child(_plan, None, num_rows, folder)),
            _row(f"a tar of tars of {num_bytes / 1e9:.0f} GB", _in_child(_plan, archive, 0, folder)),
        ]
    return Table(
        title="Planning in the driver",
        columns=("source", "images", "wall s", "CPU s", "CPU us an image", "process peak MB", "stored plan MB"),
        rows=rows,
        note=(
            "From listing to the stored plan. The peak is of the whole process, interpreter and libraries included. "
            "The archive is sparse: headers are real, images are holes, and what is read comes from the page cache."
        ),
    )


def _row(name: str, found: dict[str, float]) -> tuple[Any, ...]:
    return (
        name,
        int(found["images"]),
        round(found["wall_s"], 1),
        round(found["cpu_s"], 1),
        round(found["cpu_s"] / found["images"] * 1e6, 1),
        round(found["peak_mb"]),
        round(found["plan_mb"], 1),
    )


def _in_child(work: Any, *arguments: Any) -> dict[str, float]:
    context = multiprocessing.get_context("spawn")
    near, far = context.Pipe()
    child = context.Process(target=_send, args=(far, work, *arguments))
    child.start()
    far.close()
    found = near.recv()
    child.join()
    return found


def _send(pipe: Connection, work: Any, *arguments: Any) -> None:
    pipe.send(work(*arguments))


def _plan(archive: str | None, num_rows: int, folder: str) -> dict[str, float]:
    source: Source = detect(archive, "train") if archive else Listing(root="a listing", num_rows=num_rows)
    started = time.perf_counter(), time.process_time()
    plan = make_plan(source, "train")
    place = str(Path(folder) / f"plan-{bool(archive)}.parquet")
    save_plan(place, plan, describe(plan, ImageConfig(), SuperpixelConfig()))
    return {
        "images": plan.num_samples,
        "wall_s": time.perf_counter() - started[0],
        "cpu_s": time.process_time() - started[1],
        "peak_mb": peak_bytes() / 1e6,
        "plan_mb": Path(place).stat().st_size / 1e6,
    }


def write_sparse_archive(place: str, num_classes: int, per_class: int = _PER_CLASS) -> int:
    """A tar of tars as ILSVRC2012_img_train.tar, whose images are holes in the file; returns its size in bytes."""
    inner_bytes = per_class * (tar.BLOCK + tar.padded(_IMAGE_BYTES)) + 2 * tar.BLOCK
    position = 0
    with Path(place).open("wb") as file:
        for number in range(num_classes):
            name = f"n{number:08d}"
            file.seek(position)
            file.write(_header(f"{name}.tar", inner_bytes))
            at = position + tar.BLOCK
            for image in range(per_class):
                file.seek(at)
                file.write(_header(f"{name}_{image}.JPEG", _IMAGE_BYTES))
                at += tar.BLOCK + tar.padded(_IMAGE_BYTES)
            position += tar.BLOCK + tar.padded(inner_bytes)
        file.truncate(position + 2 * tar.BLOCK)
    return position


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.USTAR_FORMAT)
