"""Local files that may be read: regular ones. Opening anything else may wait for ever, or never end."""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.errors import DataError

from .passed import PassedOver


class NotAFileError(DataError, FileNotFoundError):
    """Something of this name is there, and it is no regular file: a pipe, a socket, a device, a loop of links."""


# What systems put beside or between images: recovered files, macOS's second halves, thumbnails, caches.
SYSTEM_FOLDERS = frozenset(
    {"lost+found", "__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "__pycache__"}
)
_KINDS = {
    stat.S_IFIFO: "a pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_regular(path: str) -> int:
    """A file descriptor to read a local regular file with; never waits, as opening a pipe would.

    Raises NotAFileError for anything else, FileNotFoundError, IsADirectoryError, PermissionError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:  # what opening a socket gives
            raise not_a_file(path, "a socket or a device without its driver") from None
        if error.errno == errno.ELOOP:
            raise not_a_file(path, "a loop of links") from None
        raise
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind == stat.S_IFREG:
        return descriptor
    os.close(descriptor)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise not_a_file(path, _KINDS.get(kind, "something unknown"))


def not_a_file(path: str, kind: str) -> NotAFileError:
    return NotAFileError(f"{path} is {kind}, not a regular file: put the file in its place, or move it away.")


def size_local(path: str) -> int:
    """Bytes of a file. Raises FileNotFoundError."""
    try:
        return os.stat(path).st_size  # noqa: PTH116
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise not_a_file(path, "a loop of links") from None
        raise


def find_local(folder: str, leave_out: Sequence[str] = (), passed: PassedOver | None = None) -> Iterator[str]:
    """Paths of all files below a folder, relative to it, in no promised order, without names that begin with '.'.

    Whatever is no folder counts, also a pipe: reading says what is wrong with it. Each folder is listed once: under
    its own name, else under that of the first link to it, so loops of links end. `leave_out` are folders, relative
    too, that are not entered. These, second links and folders of the system are counted in `passed`. Raises DataError
    for a folder that may not be read.
    """
    passed = passed or PassedOver()
    waiting, links, seen = [""], list[str](), set[tuple[int, int]]()
    while waiting or links:
        if not waiting:  # the first of the links by name: which of two links to a folder counts is no accident
            links.sort(reverse=True)
        prefix = waiting.pop() if waiting else links.pop()
        place = os.path.join(folder, prefix)  # noqa: PTH118 - a Path per file costs 10 s per million
        with _listing(place) as entries:
            status = os.stat(place)  # noqa: PTH116
            if (status.st_dev, status.st_ino) in seen:
                passed.add("links to folders that are listed already", prefix)
                continue
            seen.add((status.st_dev, status.st_ino))
            for entry in entries:
                path = f"{prefix}{entry.name}"
                if entry.name.startswith("."):
                    continue
                if not _is_folder(entry):
                    yield path
                elif entry.name in SYSTEM_FOLDERS:
                    passed.add("folders of the system", path)
                elif path in leave_out:
                    passed.add("folders that focusvit wrote", path)
                else:
                    (links if entry.is_symlink() else waiting).append(f"{path}/")


def kinds_local(folder: str) -> list[tuple[str, bool]]:
    """(name, whether it is a folder) of what lies directly inside; a link counts as what it leads to."""
    if not os.path.isdir(folder):  # noqa: PTH112
        return []
    with _listing(folder) as entries:
        return [(entry.name, _is_folder(entry)) for entry in entries]


def _listing(folder: str) -> Any:
    try:
        return os.scandir(folder)
    except PermissionError as error:
        raise DataError(
            f"the folder {folder} cannot be listed ({error.strerror}). Make it readable, or move it away."
        ) from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False
