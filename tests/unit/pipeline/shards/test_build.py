"""A shard is a pure function of its rows; its tar is what others read; a bad sample costs itself."""

import io
import tarfile
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from pipeline.image.image import BadImage, ImageConfig
from pipeline.io import tar
from pipeline.shards.build import build_shard, make_sample
from pipeline.shards.isolate import IsolatedMaker
from pipeline.shards.sample import decode
from pipeline.superpixels.segment import SuperpixelConfig, segment_image
from testkit.image_sources import jpeg

ROWS: list[dict[str, Any]] = [
    {
        "source": f"c/{i}.jpg", "file": f"{i}", "offset": 0, "length": -1, "key": f"{i}-abc", "class_id": i % 3 - 1,
        "label_file": "", "labels": [i] if i == 4 else [], "sha256": "",
    }
    for i in range(6)
]  # fmt: skip


class Memory:
    kind, root = "memory", ""

    def read(self, file: str, offset: int, length: int) -> bytes:
        return jpeg(int(file))


def _make(row: dict[str, Any]) -> dict[str, bytes]:
    return make_sample(row, Memory(), ImageConfig(), SuperpixelConfig())  # type: ignore[arg-type]


def test_the_same_rows_give_the_same_bytes() -> None:
    assert build_shard(ROWS, _make).data == build_shard(ROWS, _make).data


@pytest.mark.parametrize("count", [1, 2, 30])
def test_a_tar_is_what_webdatasets_writer_writes(count: int) -> None:
    """Bit for bit: sizes about a block, a short and a long key, and a file that ends near the end of a record."""
    webdataset = pytest.importorskip("webdataset")
    samples = [("k" * (1 + 7 * i % 90), {"cls": b"3", "jpg": bytes([i]) * (511 + i % 3)}) for i in range(count)]
    buffer = io.BytesIO()
    options = {"user": "", "group": "", "mode": 0o644, "mtime": 0, "compress": False, "encoder": False}
    with webdataset.TarWriter(buffer, **options) as writer:
        writer.tarstream.format = tarfile.USTAR_FORMAT
        for key, members in samples:
            writer.write({"__key__": key, **members})
    files = [(f"{key}.{suffix}", data) for key, members in samples for suffix, data in members.items()]
    assert b"".join(tar.written(files)) == buffer.getvalue()
    long = [("d" * 80 + "/" + "n" * 60, b"x")]  # over 100 bytes: tarfile splits it at a slash
    found = tarfile.open(fileobj=io.BytesIO(b"".join(tar.written(long)))).getmembers()
    assert [info.name for info in found] == [long[0][0]]


def test_members_are_plain_sorted_ustar_with_nothing_of_this_moment() -> None:
    built = build_shard(ROWS, _make)
    infos = tarfile.open(fileobj=io.BytesIO(built.data)).getmembers()
    assert [info.name.partition(".")[2] for info in infos[:4]] == ["jpg", "json", "merges.npy", "spx.png"]
    assert [info.name.partition(".")[2] for info in infos[4:9]] == ["cls", "jpg", "json", "merges.npy", "spx.png"]
    assert {(i.mtime, i.uid, i.gid, i.uname, i.gname, i.mode) for i in infos} == {(0, 0, 0, "", "", 0o644)}


def test_index_spans_hold_one_sample_each() -> None:
    built = build_shard(ROWS, _make)
    places = (built.columns[name] for name in ("offsets", "lengths", "class_ids"))
    for row, offset, length, class_id in zip(ROWS, *places, strict=True):
        archive = tarfile.open(fileobj=io.BytesIO(built.data[offset : offset + length]))
        members = {
            info.name.partition(".")[2]: archive.extractfile(info).read()  # type: ignore[union-attr]
            for info in archive.getmembers()
        }
        sample = decode(row["key"], members)
        assert sample.image == jpeg(int(row["file"])) and class_id == row["class_id"]
        assert sample.class_id == (None if class_id < 0 else class_id)
        assert sample.meta["source"] == row["source"] and (sample.meta["height"], sample.meta["width"]) == (40, 56)
        assert sample.meta.get("labels") == (row["labels"] or None)
        assert sample.meta["superpixels"]["regions"] == len(sample.superpixels.merges) + 1
    assert built.columns["num_regions"][-1] == sample.meta["superpixels"]["regions"]


def test_a_map_can_be_made_again_from_the_stored_image() -> None:
    row = {**ROWS[0], "file": "0"}

    class Large(Memory):
        def read(self, file: str, offset: int, length: int) -> bytes:
            return jpeg(3, 500, 700)

    from pipeline.image.image import decode_image

    sample = decode("k", make_sample(row, Large(), ImageConfig(), SuperpixelConfig()))  # type: ignore[arg-type]
    again = segment_image(decode_image(sample.image), SuperpixelConfig())
    assert np.array_equal(again.map, sample.superpixels.map) and np.array_equal(again.merges, sample.superpixels.merges)


def test_a_bad_sample_costs_itself() -> None:
    def make(row: dict[str, Any]) -> dict[str, bytes]:
        if row["file"] == "2":
            raise BadImage("is empty (0 bytes)")
        return _make(row)

    built = build_shard(ROWS, make)
    assert [(bad["source"], bad["reason"]) for bad in built.bad] == [("c/2.jpg", "is empty (0 bytes)")]
    assert built.data == build_shard([row for row in ROWS if row["file"] != "2"], _make).data


def test_an_unreadable_file_is_the_samples_own_and_a_broken_disk_is_not() -> None:
    class Broken(Memory):
        def read(self, file: str, offset: int, length: int) -> bytes:
            raise {"0": FileNotFoundError, "1": PermissionError}.get(file, OSError)("why")

    for file, kind in (("0", BadImage), ("1", BadImage), ("2", OSError)):
        with pytest.raises(kind, match="why"):
            make_sample({**ROWS[0], "file": file}, Broken(), ImageConfig(), SuperpixelConfig())  # type: ignore[arg-type]


def _dangerous(row: dict[str, Any]) -> dict[str, bytes]:
    import os
    import signal
    import time
    from pathlib import Path

    if row["file"] == "1":
        os.kill(os.getpid(), signal.SIGFPE)
    if row["file"] == "3" and not Path(row["source"]).exists():  # dies once: an accident
        Path(row["source"]).write_text("died")
        os.kill(os.getpid(), signal.SIGKILL)
    if row["file"] == "4":
        time.sleep(60)
    if row["file"] == "5":
        raise BadImage("is empty")
    return {"jpg": row["file"].encode()}


def test_isolation_names_what_kills_and_forgives_accidents(tmp_path: Any) -> None:
    with closing(IsolatedMaker(_dangerous, timeout_s=1)) as isolated:
        outcomes = []
        for i in range(6):
            try:
                outcomes.append(isolated({**ROWS[i], "file": str(i), "source": str(tmp_path / "mark")})["jpg"].decode())
            except BadImage as error:
                outcomes.append(str(error))
    assert outcomes == [
        "0",
        "ends the process that prepares it (SIGFPE, twice)",
        "2",
        "3",
        "ends the process that prepares it (no answer in 1 s, twice)",
        "is empty",
    ]
