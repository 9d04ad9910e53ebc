"""Splits that are finished at the same moment are all in `dataset.json`, on a disk and in a store."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import DataError
from pipeline.io import storage
from pipeline.shards import entry
from pipeline.shards.commit import clear_leftovers
from pipeline.shards.dataset import DATASET_FILE, open_dataset
from pipeline.shards.interop import TIMM_FILE
from testkit.image_sources import class_images, write_folder
from testkit.preprocessed import preprocessed


@pytest.fixture
def source(tmp_path: Path) -> str:
    for number, split in enumerate("abc"):
        write_folder(tmp_path / "images" / split, class_images(classes=2, per_class=2, start=5000 * number))
    return str(tmp_path / "images")


def _run(source: str, out: str, split: str) -> str:
    return preprocessed(f"{source}/{split}", out, split).root_hash


def _check_both(out: str, roots: dict[str, str]) -> None:
    assert {name: info.root_hash for name, info in open_dataset(out).splits.items()} == roots
    assert set(json.loads(storage.read_bytes(storage.join(out, TIMM_FILE)))["splits"]) == roots.keys() == {"a", "b"}


@pytest.mark.parametrize("near", [True, False])
def test_a_split_finished_between_the_reading_and_the_writing_of_another_stays(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, near: bool
) -> None:
    out, roots = str(tmp_path / "out") if near else f"memory://{tmp_path.name}/between", {}
    make = entry.dataset_files

    def run_other() -> None:
        roots["b"] = _run(source, out, "b")

    other = threading.Thread(target=run_other)

    def slow(*arguments: Any) -> dict[str, bytes]:
        files = make(*arguments)
        if other.ident is None:
            other.start()
            other.join(2 if near else None)  # near it comes to the lock and waits there
        return files

    monkeypatch.setattr(entry, "dataset_files", slow)
    roots["a"] = _run(source, out, "a")
    other.join()
    _check_both(out, roots)


def test_an_older_file_written_over_the_newer_one_is_seen(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = f"memory://{tmp_path.name}/over"
    roots = {"b": _run(source, out, "b")}
    place = storage.join(out, DATASET_FILE)
    older, put, left = storage.read_bytes(place), storage.put, [1]

    def overwritten(uri: str, data: bytes) -> None:
        put(uri, data)
        if uri == place and left[0]:
            left[0] -= 1
            put(place, older)

    monkeypatch.setattr(storage, "put", overwritten)
    roots["a"] = _run(source, out, "a")
    _check_both(out, roots)
    left[0] = 1000
    with pytest.raises(DataError, match=r"split 'c' could not be entered in .*dataset\.json in 10 tries"):
        _run(source, out, "c")


def test_leftovers_are_not_what_another_split_is_writing(tmp_path: Path) -> None:
    (tmp_path / ".focusvit").mkdir()
    writing, of_another = tmp_path / ".dataset.json.x.tmp", tmp_path / ".focusvit" / ".plan-a_b.parquet.x.tmp"
    for path in (writing, of_another):
        path.write_bytes(b"half")
    clear = threading.Thread(target=clear_leftovers, args=(str(tmp_path), "a"))
    with storage.locked(str(tmp_path)):
        clear.start()
        clear.join(0.5)
        assert clear.is_alive() and writing.exists()
    clear.join()
    assert not writing.exists() and of_another.exists()
