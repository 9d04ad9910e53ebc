"""The header reader agrees with the standard library, and says where an archive is broken."""

import io
import tarfile

import pytest

from pipeline.errors import DataError
from pipeline.io import tar
from testkit.image_sources import tar_bytes

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
