"""The header reader agrees with the standard library, and says where an archive is broken."""

import io
import tarfile
from pathlib import Path

import pytest

from pipeline.errors import DataError
from pipeline.io import tar
from testkit.image_sources import linked_tar, tar_bytes

FILES = {"a.txt": b"x" * 700, "d/b.bin": b"", f"{'long/' * 30}name.jpg": b"y" * 512, "ü.jpg": b"z"}


def _members(data: bytes, end: int | None = None) -> dict[str, bytes]:
    found = tar.members(lambda at, n: data[at : at + n], 0, len(data) if end is None else end, "x.tar")
    return {member.name: data[member.offset : member.offset + member.size] for member in found}


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_reads_what_tarfile_writes(format: int) -> None:
    data = tar_bytes(FILES, format)
    assert _members(data) == FILES
    assert list(_members(data)) == tarfile.open(fileobj=io.BytesIO(data)).getnames()


def test_folders_and_links_are_left_out() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind in (("d", tarfile.DIRTYPE), ("l", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type = kind
            archive.addfile(info)
        info = tarfile.TarInfo("f")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    assert _members(buffer.getvalue()) == {"f": b"abc"}


DEEP = f"{'deep/' * 30}file.jpg"


def _followed(data: bytes) -> tuple[dict[str, bytes], list[str]]:
    read = lambda at, n: data[at : at + n]  # noqa: E731
    files, lost = tar.followed(list(tar.members(read, 0, len(data), "x.tar", links=True)))
    return {file.name: read(file.offset, file.size) for file in files}, lost


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_links_are_followed_inside_the_archive_only(format: int, tmp_path: Path) -> None:
    outside = tmp_path / "outside.jpg"
    outside.write_bytes(b"not ours")
    before = linked_tar((), [("./b/first.jpg", "../a/file.jpg", "soft")], format)[: tar.BLOCK]
    data = before + linked_tar(
        [("./a/file.jpg", b"abc")],
        [
            ("./b/hard.jpg", "./a/file.jpg", "hard"),
            ("./b/chain.jpg", "first.jpg", "soft"),
            ("./b/absolute.jpg", str(outside)[:100], "soft"),
            ("./b/up.jpg", "../../../../outside.jpg", "soft"),
            ("./b/gone.jpg", "./a/gone.jpg", "hard"),
            ("./b/round.jpg", "about.jpg", "soft"),
            ("./b/about.jpg", "round.jpg", "soft"),
            ("./b/folder", "../a", "soft"),
        ],
        format,
    )
    files, lost = _followed(data)
    assert files == dict.fromkeys(["./b/first.jpg", "./a/file.jpg", "./b/hard.jpg", "./b/chain.jpg"], b"abc")
    assert [name.rsplit("/", 1)[-1] for name in lost] == [
        "absolute.jpg", "up.jpg", "gone.jpg", "round.jpg", "about.jpg", "folder",
    ]  # fmt: skip


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_links_to_and_from_long_names(format: int) -> None:
    data = linked_tar([(DEEP, b"abc")], [(f"x/{DEEP}", DEEP, "hard"), ("short.jpg", DEEP, "soft")], format)
    assert _followed(data) == (dict.fromkeys([DEEP, f"x/{DEEP}", "short.jpg"], b"abc"), [])


def test_what_gnu_tar_writes_for_linked_files(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"abc")
    (tmp_path / "b.jpg").hardlink_to(tmp_path / "a.jpg")
    (tmp_path / "c.jpg").symlink_to("a.jpg")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in "abc":
            archive.add(tmp_path / f"{name}.jpg", f"{name}.jpg")
    assert _followed(buffer.getvalue()) == (dict.fromkeys(["a.jpg", "b.jpg", "c.jpg"], b"abc"), [])


@pytest.mark.parametrize("cut", [100, 512 + 300, 2048 + 100])
def test_a_cut_archive_is_refused(cut: int) -> None:
    with pytest.raises(DataError, match=r"x\.tar (is cut|is not a whole tar)"):
        _members(tar_bytes(FILES)[:cut])


@pytest.mark.parametrize("record", [b"0 path=b\n", b"-6 a=b\n6 a=b\n", b"garbage", b"10 size=x\n", b"11 size=-1\n"])
def test_a_damaged_extended_header_is_named(record: bytes) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        info = tarfile.TarInfo("h")
        info.type, info.size = tarfile.XHDTYPE, len(record)
        archive.addfile(info, io.BytesIO(record))
    with pytest.raises(DataError, match=r"x\.tar is damaged: the extended header at byte 512"):
        _members(buffer.getvalue() + tar_bytes({"a.jpg": b"abc"}))


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.XHDTYPE])
def test_a_negative_size_is_refused_and_never_leads_back(kind: bytes) -> None:
    header = bytearray(tar_bytes({"a.jpg": b"abc"})[:512])
    header[124:136], header[156:157], header[148:156] = (
        b"-0000001000\0",
        kind,
        b" " * 8,
    )  # octal -512: this header again
    header[148:156] = b"%06o\0 " % sum(header)
    data, reads = bytes(header) * 3, 0

    def read(at: int, length: int) -> bytes:
        nonlocal reads
        reads += 1
        assert 0 <= at and reads < 10, "the scan does not advance"
        return data[at : at + length]

    with pytest.raises(DataError, match=r"x\.tar .*no valid header at byte 0"):
        list(tar.members(read, 0, len(data), "x.tar"))


def test_an_extended_header_larger_than_the_archive_is_not_asked_for() -> None:
    header = bytearray(tar_bytes({"h": b""})[:512])
    header[124:136], header[156:157], header[148:156] = b"\x80" + b"\x01" * 11, tarfile.XHDTYPE, b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data = bytes(header) * 3

    def read(at: int, length: int) -> bytes:
        assert length <= len(data), "more than memory holds"
        return data[at : at + length]

    with pytest.raises(DataError, match=r"x\.tar is cut or damaged: the extended header at byte 512"):
        list(tar.members(read, 0, len(data), "x.tar"))


def test_a_missing_end_mark_is_forgiven() -> None:
    data = tar_bytes({"a": b"1"})
    assert _members(data[:1024]) == {"a": b"1"}


def test_other_files_are_no_tars() -> None:
    with pytest.raises(DataError, match=r"not a tar.*\.tar\.gz"):
        _members(b"\x1f\x8b" + bytes(range(256)) * 8)


def test_a_flipped_header_byte_is_found() -> None:
    data = bytearray(tar_bytes(FILES))
    data[130] ^= 1
    with pytest.raises(DataError, match="at byte 0"):
        _members(bytes(data))
