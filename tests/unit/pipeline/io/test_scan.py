"""Large and far sources: few requests to list them, small tasks whatever they hold, whose fault a failed read is."""

import pickle
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.image.image import ImageConfig
from pipeline.io import scan, storage
from pipeline.io.store import open_store
from pipeline.plan.plan import make_plan, read_shard_rows, save_plan
from pipeline.shards.build import ShardSpec
from pipeline.sources import Source, detect
from pipeline.sources.fields import TableColumns
from pipeline.sources.lists import LabelList
from pipeline.sources.parquet import HuggingFaceParquet, _images, _open
from pipeline.sources.wds import WebDatasetTars
from pipeline.superpixels.segment import SuperpixelConfig
from testkit.image_sources import class_images, jpeg, tar_bytes, write_folder, write_parquet, write_tar_of_tars

IMAGES = class_images(classes=4, per_class=6)


class Requests:
    """Counts what a memory store is asked for, and answers as slowly as a far one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, delay_s: float = 0.0) -> None:
        self.count = self.now = self.most = self.num_bytes = 0
        self._lock, self._delay_s = threading.Lock(), delay_s
        store = type(open_store("memory://")[0])
        whole = store.cat_file

        def counted(this: object, path: str, start: int | None = None, end: int | None = None, **more: object) -> bytes:
            with self._lock:
                self.count, self.now = self.count + 1, self.now + 1
                self.most = max(self.most, self.now)
            time.sleep(self._delay_s)
            data = whole(this, path, start=start, end=end, **more)
            with self._lock:
                self.now -= 1
                self.num_bytes += len(data)
            return data

        monkeypatch.setattr(store, "cat_file", counted)


def test_a_scan_reads_what_is_there_near_and_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(256)) * 40
    monkeypatch.setattr(scan, "WINDOW_BYTES", 1000)
    for place in (str(tmp_path / "file"), f"memory://{tmp_path.name}/file"):
        storage.put(place, data)
        with scan.Scan(place) as read:
            assert read.size == len(data)
            for at, length in [(0, 512), (512, 512), (5000, 3000), (100, 10), (10_200, 100), (20_000, 5)]:
                assert read(at, length) == data[at : at + length], place


def test_a_far_archive_is_listed_with_few_requests_beside_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = class_images(classes=12, per_class=10)
    write_tar_of_tars(tmp_path / "train.tar", images)
    near = list(detect(str(tmp_path / "train.tar"), "train").images())
    far = f"memory://{tmp_path.name}/train.tar"
    storage.put(far, (tmp_path / "train.tar").read_bytes())
    source = detect(far, "train")
    asked = Requests(monkeypatch, delay_s=0.05)
    assert list(source.images()) == near and len(near) == 120
    assert asked.count <= 1 + len(images), "one window for the outer headers and for each class, not one for each image"
    assert asked.most > 4


def test_folders_of_a_store_are_walked_as_on_a_disk(tmp_path: Path) -> None:
    write_folder(tmp_path / "images", IMAGES)
    (tmp_path / "images" / "deep" / "er").mkdir(parents=True)
    (tmp_path / "images" / "deep" / "er" / "x.jpg").write_bytes(jpeg(0))
    (tmp_path / "images" / "notes.txt").write_text("x")
    root = f"memory://{tmp_path.name}/walk"
    for path in (tmp_path / "images").rglob("*.*"):
        storage.put(f"{root}/{path.relative_to(tmp_path / 'images')}", path.read_bytes())
    assert sorted(scan.find_in_parallel(root)) == sorted(scan.find_in_parallel(str(tmp_path / "images")))
    assert list(scan.find_in_parallel(root + "/nothing")) == []


def test_parallel_results_keep_their_order_and_stay_near_the_consumer() -> None:
    started: list[int] = []

    def work(number: int) -> int:
        started.append(number)
        time.sleep(0.001 * (7 - number % 7))
        return number * number

    results = scan.in_parallel(work, range(200), threads=4)
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16] and len(started) <= 5 + 4
    assert list(results) == [number * number for number in range(5, 200)]
    with pytest.raises(ZeroDivisionError):
        list(scan.in_parallel(lambda number: 1 // number, range(3)))


def test_a_worker_reads_its_rows_of_a_far_plan_and_not_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "labels.csv").write_text("file,labels\n" + "\n".join(f"x/{i}.jpg,c{i % 9}" for i in range(20_000)))
    plan = make_plan(LabelList(root=str(tmp_path)), "train", samples_per_shard=1000)
    place = f"memory://{tmp_path.name}/plan-train.parquet"
    save_plan(place, plan, {})
    asked = Requests(monkeypatch)
    rows = read_shard_rows(place, 7)
    assert rows == plan.table.slice(7000, 1000).to_pylist()
    assert asked.num_bytes < storage.size(place) / 3


def _huge_sources(root: Path) -> list[Source]:
    names = tuple(f"train-{i:06d}.tar" for i in range(20_000))
    classes = tuple(f"class number {i}" for i in range(20_000))
    (root / "labels.csv").write_text("file,labels\n" + "\n".join(f"{i}.jpg,c{i}" for i in range(20_000)))
    listed = LabelList(root=str(root))
    list(listed.images())
    columns = TableColumns("image", "label", ())
    return [
        WebDatasetTars(root=str(root), files=names, stated_classes=classes),
        HuggingFaceParquet(root=str(root), files=names, stated_classes=classes, columns=columns, split=None),
        replace(detect(str(write_folder(root / "images", IMAGES)), "train"), stated_classes=classes),  # type: ignore[type-var]
        replace(detect(str(write_tar_of_tars(root / "a.tar", IMAGES)), "train"), stated_classes=classes),  # type: ignore[type-var]
        listed,
    ]


def test_a_task_is_small_whatever_the_source_holds(tmp_path: Path) -> None:
    """Ray keeps arguments of 100 KB and more in its object store; a task stays far below."""
    for source in _huge_sources(tmp_path):
        spec = ShardSpec(
            out=str(tmp_path), split="train", shard=1, source=source.reader(), image=ImageConfig(),
            superpixels=SuperpixelConfig(), fingerprint="f" * 64, golden="0" * 64, skip_bad=False,
        )  # fmt: skip
        assert len(pickle.dumps(spec)) < 2000, source.kind


def test_an_image_that_is_gone_is_its_own_fault_and_a_place_that_is_gone_is_not(tmp_path: Path) -> None:
    folder, far = write_folder(tmp_path / "images", IMAGES), f"memory://{tmp_path.name}/images"
    for path in folder.rglob("*.JPEG"):
        storage.put(f"{far}/{path.relative_to(folder)}", path.read_bytes())
    name = "n00000001/n00000001_0.JPEG"
    near_reader, far_reader = (detect(place, "train").reader() for place in (str(folder), far))
    (folder / name).unlink()
    storage.remove(f"{far}/{name}")
    for reader in (near_reader, far_reader):
        with pytest.raises(FileNotFoundError):
            reader.read(name, 0, -1)
    shutil.rmtree(folder)
    open_store("memory://")[0].rm(far.removeprefix("memory:/"), recursive=True)
    for reader in (near_reader, far_reader):
        with pytest.raises(storage.StoreError, match="nor the folder that holds it"):
            reader.read(name, 0, -1)
    folder.mkdir()  # a mount point without its mount
    with pytest.raises(storage.StoreError, match="Is the source mounted"):
        near_reader.read("flat.jpg", 0, -1)


def test_an_archive_that_is_gone_or_cut_is_never_held_against_its_images(tmp_path: Path) -> None:
    archive = write_tar_of_tars(tmp_path / "train.tar", IMAGES)
    write_parquet(tmp_path / "p" / "train-0.parquet", IMAGES)
    wds = tmp_path / "w" / "0.tar"
    wds.parent.mkdir()
    wds.write_bytes(tar_bytes({"a.jpg": jpeg(0), "a.cls": b"0", "b.jpg": jpeg(1), "b.cls": b"1"}))
    for place, whole in ((archive, archive), (tmp_path / "p", tmp_path / "p" / "train-0.parquet"), (wds, wds)):
        source = detect(str(place), "train")
        rows = list(source.images())
        where = max(rows, key=lambda row: (row.file, row.offset))
        whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
        with pytest.raises((storage.StoreError, OSError)) as error:
            source.reader().read(where.file, where.offset, where.length)
        assert not isinstance(error.value, FileNotFoundError | PermissionError)
        whole.unlink()
        with pytest.raises(OSError) as error:
            source.reader().read(where.file, where.offset, where.length)
        assert not isinstance(error.value, FileNotFoundError | PermissionError)


def test_a_tar_of_tars_of_many_members_is_scanned_by_offset_only(tmp_path: Path) -> None:
    """A sparse archive of 4 GB: its content is never read."""
    file, position = (tmp_path / "train.tar").open("wb"), 0
    names = []
    for number in range(4):
        inner = tar_bytes({f"n{number:08d}_0.JPEG": b""})[:512]
        size = 2**30
        header = tar_bytes({f"n{number:08d}.tar": b""})[:512]
        for at, block, length in ((position, header, size), (position + 512, inner, size - 1024)):
            file.seek(at)
            file.write(_sized(block, length))
        names.append(f"n{number:08d}/n{number:08d}_0.JPEG")
        position += 512 + size
    file.truncate(position + 1024)
    file.close()
    rows = list(detect(str(tmp_path / "train.tar"), "train").images())
    assert [row.source for row in rows] == names and all(row.length == 2**30 - 1024 for row in rows)
    assert (tmp_path / "train.tar").stat().st_blocks * 512 < 2**20


def _sized(header: bytes, size: int) -> bytes:
    """The header of a member, for another size."""
    block = bytearray(header)
    block[124:136] = f"{size:011o}\0".encode()
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


def test_rows_survive_a_parquet_that_is_damaged_inside(tmp_path: Path) -> None:
    """A flipped page ends the run in words; it is not a bad image."""
    place = tmp_path / "train-0.parquet"
    table = pa.table({"image": pa.array([jpeg(i) for i in range(20)]), "label": pa.array([0] * 20)})
    pq.write_table(table, place, compression="zstd")
    source = detect(str(place), "train")
    row = list(source.images())[3]
    data = bytearray(place.read_bytes())
    data[4:60] = bytes(56)  # the header of the first page
    place.write_bytes(data)
    _images.cache_clear(), _open.cache_clear()
    with pytest.raises(OSError) as error:
        source.reader().read(row.file, row.offset, row.length)
    assert not isinstance(error.value, FileNotFoundError | PermissionError)
