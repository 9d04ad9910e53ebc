"""Listings near and far are the same; what is passed over is counted; no folder ends in a traceback."""

import os
from pathlib import Path

import pytest

from pipeline.errors import DataError
from pipeline.io import scan, storage
from pipeline.io.passed import PassedOver

FILES = ("a/1.jpg", "a/deep/er/2.jpg", "b/3.jpg", "notes.txt", ".hidden/4.jpg", "a/.5.jpg", "out/6.jpg")


def _near_and_far(tmp_path: Path) -> tuple[str, str]:
    near, far = str(tmp_path / "images"), f"memory://{tmp_path.name}/images"
    for place in (near, far):
        for name in FILES:
            storage.put(storage.join(place, name), b"x")
    return near, far


def test_a_store_is_listed_as_a_disk(tmp_path: Path) -> None:
    for place in _near_and_far(tmp_path):
        assert storage.list_inside(place) == (["a", "b", "out"], ["notes.txt"])
        assert sorted(scan.find_in_parallel(place)) == [
            "a/1.jpg",
            "a/deep/er/2.jpg",
            "b/3.jpg",
            "notes.txt",
            "out/6.jpg",
        ]
        assert sorted(scan.find_in_parallel(place, leave_out=["out", "a/deep"])) == ["a/1.jpg", "b/3.jpg", "notes.txt"]
        nowhere = storage.join(place, "nowhere")
        assert (storage.list_inside(nowhere), list(scan.find_in_parallel(f"memory://{nowhere[1:]}"))) == (([], []), [])


def test_a_second_link_to_a_folder_is_counted(tmp_path: Path) -> None:
    for name in ("x/1.jpg", "y/2.jpg"):
        storage.put(str(tmp_path / "set" / name), b"x")
    storage.put(str(tmp_path / "elsewhere" / "3.jpg"), b"x")
    links = {"x/self": "self", "x/up": "..", "x/y": "../y", "z": "../elsewhere", "zz": "../elsewhere", "gone": "no"}
    for name, target in links.items():
        (tmp_path / "set" / name).symlink_to(target)
    passed = PassedOver()
    found = sorted(scan.find_in_parallel(str(tmp_path / "set"), passed=passed))
    assert found == ["gone", "x/1.jpg", "x/self", "y/2.jpg", "z/3.jpg"]
    assert passed.lines() == ["left out: links to folders that are listed already: 3 (x/up/, x/y/, zz/)"]


def test_folders_of_the_system_are_counted_and_those_without_permission_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/1.jpg", "lost+found/2.jpg", "a/@eaDir/3.jpg", "__MACOSX/a/4.jpg"):
        storage.put(str(tmp_path / name), b"x")
    passed = PassedOver()
    assert list(scan.find_in_parallel(str(tmp_path), passed=passed)) == ["a/1.jpg"]
    assert storage.list_inside(str(tmp_path)) == (["a"], [])
    assert passed.lines()[0].startswith("left out: folders of the system: 3 (__MACOSX, a/@eaDir, lost+found)")
    scandir = os.scandir

    def refused(place: str) -> object:  # root may read all, so chmod would show nothing
        if str(place).rstrip("/").endswith(("/a", "lost+found")):
            raise PermissionError(13, "Permission denied", place)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(DataError, match=r"the folder .*/a/? cannot be listed"):
        list(scan.find_in_parallel(str(tmp_path)))
    with pytest.raises(DataError, match=r"the folder .*/a/? cannot be listed"):
        storage.list_inside(str(tmp_path / "a"))


def test_names_that_are_no_text_can_be_printed() -> None:
    passed = PassedOver()
    for name in ("d", "c", "b", "a\udcff.txt"):
        passed.add("files of unknown ending", name)
    assert passed.lines() == ["left out: files of unknown ending: 4 (a?.txt, b, c, ...)"]
