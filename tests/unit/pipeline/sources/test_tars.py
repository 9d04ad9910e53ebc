"""Archives of class folders and class tars, and folders of tars: what is read, what is counted, what is refused."""

from pathlib import Path

import pytest

from pipeline.errors import DataError, UsageError
from pipeline.sources import Source, detect
from testkit.image_sources import linked_tar, tar_bytes

FLAT = {f"{name}/{i}.jpg": f"{name}{i}".encode() for name in ("n00000001", "n00000002") for i in range(3)}


def _write(root: Path, **tars: bytes) -> Path:
    root.mkdir(exist_ok=True)
    for name, data in tars.items():
        (root / f"{name}.tar").write_bytes(data)
    return root


def _read(source: Source) -> dict[str, tuple[str | None, bytes]]:
    read = source.reader().read
    return {i.source: (i.class_name, read(i.file, i.offset, i.length)) for i in source.images()}


CONTENT = {name: (name.partition("/")[0], data) for name, data in FLAT.items()}


def test_links_in_an_archive_of_class_folders(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"outside")
    links = [
        ("data/n00000003/a.jpg", "data/n00000001/0.jpg", "hard"),
        ("data/n00000003/b.jpg", "../n00000002/1.jpg", "soft"),
        ("data/n00000003/c.jpg", str(tmp_path / "secret.jpg"), "soft"),
        ("data/n00000003/d.jpg", "../../../secret.jpg", "soft"),
    ]
    files = [(f"data/{name}", data) for name, data in FLAT.items()]
    _write(tmp_path, any=linked_tar([*files, ("data/readme.txt", b"")], links))
    source = detect(str(tmp_path / "any.tar"), "train")
    linked = {"n00000003/a.jpg": ("n00000003", b"n000000010"), "n00000003/b.jpg": ("n00000003", b"n000000021")}
    assert _read(source) == CONTENT | linked
    assert source.notes() == [
        "left out: files of unknown ending: 1 (data/readme.txt); "
        "links that lead to no file of the archive: 2 (data/n00000003/c.jpg, data/n00000003/d.jpg)"
    ]


def test_links_in_a_tar_of_class_tars(tmp_path: Path) -> None:
    inner = {
        f"n{number:08d}.tar": linked_tar(
            [("0.jpg", f"n{number:08d}0".encode())],
            [("1.jpg", "0.jpg", "hard"), ("2.jpg", "./1.jpg", "soft"), ("3.jpg", "../n00000001/0.jpg", "soft")],
        )
        for number in (1, 2)
    }
    _write(tmp_path, train=tar_bytes(inner))
    source = detect(str(tmp_path / "train.tar"), "train")
    found = _read(source)
    assert found["n00000002/2.jpg"] == ("n00000002", b"n000000020") and len(found) == 6
    assert source.notes() == ["left out: links that lead to no file of the archive: 2 (3.jpg, 3.jpg)"]


def test_a_folder_of_class_tars(tmp_path: Path) -> None:
    tars = {f"n{c:08d}": {n.partition("/")[2]: d for n, d in FLAT.items() if n.startswith(f"n{c:08d}")} for c in (1, 2)}
    source = detect(str(_write(tmp_path, **{name: tar_bytes(files) for name, files in tars.items()})), "train")
    assert _read(source) == CONTENT and source.kind == "folder of class tars"


def test_the_later_of_two_members_of_one_name_counts_and_the_other_is_said(tmp_path: Path) -> None:
    first, again = tar_bytes({"a/0.jpg": b"old", "b/0.jpg": b"b"}), tar_bytes({"a/0.jpg": b"new"})
    _write(tmp_path, any=first[: 4 * 512] + again)  # as `tar --append` does
    source = detect(str(tmp_path / "any.tar"), "train")
    assert _read(source) == {"a/0.jpg": ("a", b"new"), "b/0.jpg": ("b", b"b")}
    assert "images that a later one of the same name replaces: 1 (a/0.jpg)" in source.notes()[0]


SAMPLES = {f"s{i:03d}.{e}": d for i in range(80) for e, d in (("cls", b"%d" % (i % 3)), ("jpg", b"%d" % i))}
LABELS_LAST = dict(sorted(SAMPLES.items(), key=lambda item: item[0].endswith("cls")))


@pytest.mark.parametrize("folder", [True, False])
def test_labels_after_all_images(tmp_path: Path, folder: bool) -> None:
    """As `tar cf x.tar *.jpg *.cls` writes them: the first 80 members show no label."""
    _write(tmp_path, a=tar_bytes(LABELS_LAST))
    if folder:
        _write(tmp_path, b=tar_bytes({"x.jpg": b"", "x.cls": b"1"}))
    found = _read(detect(str(tmp_path if folder else tmp_path / "a.tar"), "train"))
    assert {name: value for name, value in found.items() if name.startswith("a/")} == {
        f"a/s{i:03d}": (str(i % 3), b"%d" % i) for i in range(80)
    }


@pytest.mark.parametrize("empty", ["a", "z"])
def test_an_empty_tar_is_passed_over_wherever_it_stands(tmp_path: Path, empty: str) -> None:
    source = detect(str(_write(tmp_path, m=tar_bytes(SAMPLES), **{empty: tar_bytes({})})), "train")
    assert len(_read(source)) == 80
    assert f"tars without a member: 1 ({empty}.tar)" in source.notes()[-1]


@pytest.mark.parametrize(
    ("tars", "words"),
    [
        ([{}, {}], r"all 2 tars in .* are empty \(0\.tar, 1\.tar\)"),
        ([{}, {"a.jpg": b"", "b.jpg": b""}], r"1\.tar has no label \(\.cls or \.json\) .* looked at: \.jpg \(2\)\."),
        ([{"a.txt": b"", "a.cls": b""}, {"b.jpg": b""}], r"0\.tar has no image; .*: \.txt \(1\), \.cls \(1\)"),
        ([{"a.jpg": b"", "a.txt": b""}] * 3, r"the 3 tars .*0\.tar has no label .*\.jpg \(1\), \.txt \(1\)"),
        ([{"a.jpg": b"", "b.json": b"{}"}] * 2, "with the key of an image"),
    ],
)
def test_tars_that_are_none_of_webdataset_say_which_was_looked_at(
    tmp_path: Path, tars: list[dict[str, bytes]], words: str
) -> None:
    _write(tmp_path, **{str(number): tar_bytes(members) for number, members in enumerate(tars)})
    with pytest.raises(UsageError, match=words):
        list(detect(str(tmp_path), "train").images())


def test_an_archive_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.tar").symlink_to("a.tar")
    _write(tmp_path, b=tar_bytes(SAMPLES), c=b"")
    for place, words in ((tmp_path, "a.tar is a loop of links"), (tmp_path / "c.tar", "c.tar is not a whole tar")):
        with pytest.raises((UsageError, DataError), match=words):
            list(detect(str(place), "train").images())


@pytest.mark.parametrize("name", [b"caf\xe9/a.jpg", b"a/caf\xe9.jpg"])
def test_names_that_are_no_utf8_are_said(tmp_path: Path, name: bytes) -> None:
    from pipeline.plan.plan import make_plan

    files = [(name.decode(errors="surrogateescape"), b"x"), ("b/x.jpg", b"y")]
    _write(tmp_path, any=linked_tar(files, ()))
    with pytest.raises(UsageError, match=r"name is not valid UTF-8: '.*caf"):
        make_plan(detect(str(tmp_path / "any.tar"), "train"), "train")


@pytest.mark.parametrize("name", ["a.tar", "train/labels.csv", "train/classes.txt"])
def test_files_that_this_user_may_not_read_are_named(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root every file may be read, so the refusal of the system is made here."""
    from pipeline.io import scan, storage
    from pipeline.io.text import read_text

    def refuse(path: str) -> int:
        raise PermissionError(13, "Permission denied", path)

    place = str(tmp_path / name)
    for module in (scan, storage):
        monkeypatch.setattr(module, "open_regular", refuse)
    monkeypatch.setattr(scan.storage, "size", lambda uri: 512)
    with pytest.raises(UsageError, match=rf"{name} may not be read by this user \(Permission denied\)"):
        if name.endswith(".tar"):
            scan.Scan(place).__enter__()
        else:
            read_text(place)


def test_tars_beside_folders(tmp_path: Path) -> None:
    for name in ("w/logs/x.txt", "c/cat/1.jpg", "c/dog/2.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    _write(tmp_path / "w", a=tar_bytes(SAMPLES), b=tar_bytes(SAMPLES))
    assert len(_read(detect(str(tmp_path / "w"), "train"))) == 160, "labelled samples, whatever folder stands there"
    _write(tmp_path / "c", images=tar_bytes(FLAT))
    source = detect(str(tmp_path / "c"), "train")
    assert set(_read(source)) == {"cat/1.jpg", "dog/2.jpg"} and "images.tar" in source.notes()[0]
