"""Writes are whole or absent; names and paths mean the same on a disk and in a store."""

import os
import pickle
from pathlib import Path

import pytest

from pipeline.errors import DataError
from pipeline.io import storage, store
from pipeline.io.scan import Scan
from pipeline.io.store import open_store
from testkit.odd_files import write_odd_files


@pytest.fixture(params=["local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "a b")
    return f"memory://{tmp_path.name}"


def test_put_then_read_whole_and_in_part(place: str) -> None:
    file = storage.join(place, "sub", "x.bin")
    assert not storage.exists(file)
    storage.put(file, b"0123456789")
    assert storage.exists(file)
    assert storage.size(file) == 10
    assert storage.read_bytes(file) == b"0123456789"
    assert storage.read_bytes(file, 3, 4) == b"3456"
    assert storage.read_bytes(file, 8, 4) == b"89"
    assert storage.read_bytes(file, 3, 0) == storage.read_bytes(file, 0, 0) == b""
    assert storage.list_names(place) == ["sub"]
    assert storage.list_names(storage.join(place, "sub")) == ["x.bin"]
    assert list(storage.find_files(place)) == ["sub/x.bin"]
    storage.remove(file)
    storage.remove(file)
    assert not storage.exists(file)
    assert storage.list_names(storage.join(place, "nowhere")) == []


def test_json_round_trip(place: str) -> None:
    file = storage.join(place, "x.json")
    storage.put_json(file, {"b": 1, "a": [1.5, None]})
    assert storage.read_json(file) == {"a": [1.5, None], "b": 1}


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = str(tmp_path / "x")
    storage.put(file, b"first")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        storage.put(file, b"second")
    assert storage.read_bytes(file) == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_leftovers_of_a_killed_write_are_hidden_and_removable(tmp_path: Path) -> None:
    (tmp_path / ".train-000001.tar.0a1b.tmp").write_bytes(b"half")
    (tmp_path / ".other.tmp").write_bytes(b"half")
    assert storage.list_names(str(tmp_path)) == []
    storage.remove_temporary(str(tmp_path), ("train-",))
    assert [path.name for path in tmp_path.iterdir()] == [".other.tmp"]


def test_resolve_makes_paths_absolute_and_keeps_uris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.resolve("data/x") == str(tmp_path / "data/x")
    assert storage.resolve(f"file://{tmp_path}/y") == str(tmp_path / "y")
    assert storage.resolve("s3://bucket/x/") == "s3://bucket/x"
    assert storage.resolve("~") == str(Path.home())


def test_an_error_that_passes_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.time, "sleep", lambda _: None)
    storage.put("memory://retry/x", b"data")
    memory, calls = open_store("memory://")[0], []
    whole = type(memory).cat_file

    def flaky(self: object, *args: object, **kwargs: object) -> bytes:
        calls.append(1)
        if len(calls) < 3:
            raise OSError("503 Slow Down")
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(type(memory), "cat_file", flaky)
    assert storage.read_bytes("memory://retry/x") == b"data"
    monkeypatch.setattr(type(memory), "cat_file", lambda *a, **k: (_ for _ in ()).throw(OSError("503")))
    with pytest.raises(OSError, match=r"memory://retry/x: 503 \(tried 5 times\)"):
        storage.read_bytes("memory://retry/x")


def test_an_empty_range_is_not_asked_of_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Range: bytes=7-6` is invalid, and servers answer that with the whole object."""
    memory, _ = open_store("memory://empty-range")
    monkeypatch.setattr(memory, "cat_file", lambda path, start, end: b"all of an archive")
    assert storage.read_bytes("memory://empty-range/x.tar", 7, 0) == b""


def test_a_store_error_crosses_processes_and_is_both_kinds() -> None:
    error = pickle.loads(pickle.dumps(storage.StoreError("s3://x: 503")))
    assert isinstance(error, OSError) and isinstance(error, DataError) and str(error) == "s3://x: 503"


@pytest.mark.timeout(20)
def test_only_regular_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for name in ("file", "link"):
        assert storage.read_bytes(str(tmp_path / name)) == b"abc"
    for name, said in write_odd_files(tmp_path).items():
        place = str(tmp_path / name)
        with pytest.raises(FileNotFoundError, match=said):
            storage.read_bytes(place)
        with pytest.raises(FileNotFoundError, match=said):
            storage.read_bytes(place, 0, 1)
        if name != "nothing.jpg" and "loop" not in name:
            with pytest.raises(FileNotFoundError, match=said), Scan(place):
                pass
    with pytest.raises(IsADirectoryError):
        storage.read_bytes(str(tmp_path))


@pytest.mark.timeout(20)
def test_each_folder_is_walked_once_whatever_links_say(tmp_path: Path) -> None:
    """A link to a folder outside counts, one to a folder inside adds nothing, one to a folder above ends."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x").touch()
    root = tmp_path / "root"
    for name in ("a/inner", "b"):
        (root / name).mkdir(parents=True)
    (root / "a" / "inner" / "y").touch()
    (root / "b" / "up").symlink_to(root)
    (root / "a" / "same").symlink_to(root / "a" / "inner")
    (root / "b" / "z2").symlink_to(tmp_path / "outside")
    (root / "b" / "z1").symlink_to(tmp_path / "outside")
    (root / "b" / "self").symlink_to(root / "b" / "self")
    assert sorted(storage.find_files(str(root))) == ["a/inner/y", "b/self", "b/z1/x"]


def test_a_folder_that_may_not_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refused)  # root may list anything
    with pytest.raises(DataError, match=f"folder {tmp_path}/ cannot be listed"):
        list(storage.find_files(str(tmp_path)))
