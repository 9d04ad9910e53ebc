"""Files on a local path or in any fsspec store (s3, gs, hf, memory), with writes that are whole or absent.

A place is a string: an absolute local path, or a URI with `://`. Nothing is ever streamed into its final name: a
local file is written beside it, synced and renamed; an object is sent as one finished put.
"""

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.secrets import masked_values

from .json_text import json_text
from .passed import PassedOver
from .regular import SYSTEM_FOLDERS, find_local, kinds_local, open_regular, size_local
from .store import StoreError as StoreError
from .store import ask

TEMPORARY_SUFFIX = ".tmp"  # what an interrupted local write leaves; `list_names` never shows it


def is_local(uri: str) -> bool:
    return "://" not in uri


def resolve(uri: str) -> str:
    """Absolute form of what a user typed. Call it once, on the driver: another process may have another folder."""
    if uri.startswith("file://"):
        uri = uri.removeprefix("file://")
    if not is_local(uri):
        return uri.rstrip("/") if not uri.endswith("://") else uri
    return str(Path(uri).expanduser().absolute())


def join(uri: str, *names: str) -> str:
    return "/".join([uri.rstrip("/"), *names]) if names else uri


def name_of(uri: str) -> str:
    return uri.rstrip("/").rsplit("/", 1)[-1]


def exists(uri: str) -> bool:
    if is_local(uri):
        return Path(uri).exists()
    return ask(uri, lambda store, path: bool(store.exists(path)))


def is_folder(uri: str) -> bool:
    if is_local(uri):
        return Path(uri).is_dir()
    return ask(uri, lambda store, path: bool(store.isdir(path)))


def size(uri: str) -> int:
    """Bytes of a file. Raises FileNotFoundError."""
    if is_local(uri):
        return size_local(uri)
    return ask(uri, lambda store, path: int(store.info(path)["size"]))


def _entries(uri: str) -> list[dict[str, Any]]:
    """What lies directly inside a folder of a store, by fsspec's names; empty when there is no such folder."""
    try:
        found = ask(uri, lambda store, path: store.ls(path, detail=True))
        return [{**entry, "name": name_of(entry["name"])} for entry in found]
    except FileNotFoundError:
        return []


def list_names(uri: str) -> list[str]:
    """Sorted names (not paths) of files and folders directly inside; empty when the folder does not exist."""
    if is_local(uri):
        names = [entry.name for entry in Path(uri).iterdir()] if Path(uri).is_dir() else []
    else:
        names = [entry["name"] for entry in _entries(uri)]
    return sorted(name for name in names if name and not name.endswith(TEMPORARY_SUFFIX))


def list_sizes(uri: str) -> dict[str, int]:
    """Bytes of each file directly inside, by name; empty when there is no such folder. One listing, also of a store."""
    if is_local(uri):
        entries = Path(uri).iterdir() if Path(uri).is_dir() else ()
        return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
    return {entry["name"]: int(entry["size"]) for entry in _entries(uri) if entry["type"] == "file"}


def list_inside(uri: str) -> tuple[list[str], list[str]]:
    """Sorted names of (folders, files) directly inside, without hidden ones and folders of the system; a link counts as
    what it leads to. One listing, also of a store. Empty when the folder does not exist; DataError as `find_local`.
    """
    if is_local(uri):
        kinds = kinds_local(uri)
    else:
        kinds = [(entry["name"], entry["type"] == "directory") for entry in _entries(uri)]
    shown = sorted((name, is_folder) for name, is_folder in kinds if name and not name.startswith("."))
    folders = [name for name, is_folder in shown if is_folder and name not in SYSTEM_FOLDERS]
    return folders, [name for name, is_folder in shown if not is_folder]


def find_files(uri: str, leave_out: Sequence[str] = (), passed: PassedOver | None = None) -> Iterator[str]:
    """Paths of all files below a folder, relative to it, in no promised order, without names that begin with '.' and
    without the folders `leave_out`. On a disk as `find_local`.
    """
    if is_local(uri):
        yield from find_local(uri, leave_out, passed)
        return
    away = tuple(f"{folder}/" for folder in leave_out)
    length, found = ask(uri, lambda store, path: (len(path), store.find(path)))
    for entry in found:
        relative = entry[length:].lstrip("/")
        if not any(part.startswith(".") for part in relative.split("/")) and not relative.startswith(away):
            yield relative


def read_bytes(uri: str, start: int = 0, length: int | None = None) -> bytes:
    """The whole file, or `length` bytes from `start`. Fewer bytes come back only where the file ends.

    Raises as `open_regular`; of a store FileNotFoundError, PermissionError, StoreError.
    """
    if is_local(uri):
        with open(open_regular(uri), "rb", buffering=0) as file:  # noqa: PTH123
            if length is None:
                file.seek(start)
                return file.readall() or b""
            return os.pread(file.fileno(), length, start)
    if length == 0:  # as a range of bytes this is invalid, and a server answers an invalid one with the whole object
        return b""
    end = None if length is None else start + length
    return ask(uri, lambda store, path: store.cat_file(path, start=start or None, end=end))


def put(uri: str, data: bytes) -> None:
    """Write a whole file under its final name, or leave what was there. Folders are made as needed.

    Raises StoreError, which is both an OSError (worth another try) and a DataError (one paragraph for the user).
    """
    if is_local(uri):
        with writing(uri) as file:
            file.write(data)
        return
    ask(uri, lambda store, path: store.pipe_file(path, data))


@contextlib.contextmanager
def writing(uri: str) -> Iterator[BinaryIO]:
    """As `put`, for what is too large to be held at once: a file that gets its final name when the block ended well.
    An object is written to this machine's temporary folder first, and sent finished.
    """
    final = Path(uri) if is_local(uri) else Path(tempfile.gettempdir(), name_of(uri))
    temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex[:12]}{TEMPORARY_SUFFIX}")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if is_local(uri):
            temporary.replace(final)
            return
        ask(uri, lambda store, path: store.put_file(str(temporary), path))
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(
            f"cannot write {uri}: {error.strerror or error}. What was there before is unharmed; make room or correct "
            f"the access, then run again."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: str) -> Iterator[None]:
    """One run at a time in a local folder, with no file for it. A store, and a disk without such locks, lets all in."""
    handle = os.open(folder, os.O_RDONLY) if is_local(folder) else -1
    try:
        if handle >= 0:
            with contextlib.suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        if handle >= 0:
            os.close(handle)


def remove(uri: str) -> None:
    """Remove one file; nothing happens when it is not there."""
    if is_local(uri):
        Path(uri).unlink(missing_ok=True)
        return
    with contextlib.suppress(FileNotFoundError):
        ask(uri, lambda store, path: store.rm_file(path))


def remove_folder(uri: str) -> None:
    """Remove a folder with all that is in it; nothing happens when it is not there."""
    if is_local(uri):
        shutil.rmtree(uri, ignore_errors=True)
        return
    with contextlib.suppress(FileNotFoundError):
        ask(uri, lambda store, path: store.rm(path, recursive=True))


def read_json(uri: str) -> Any:
    return json.loads(read_bytes(uri))


def put_json(uri: str, value: Any) -> None:
    """Write a document; secrets in its addresses are left out."""
    put(uri, json_bytes(masked_values(value)))


def json_bytes(value: Any) -> bytes:
    return (json_text(value, indent=1, sort_keys=True) + "\n").encode()


def remove_temporary(folder: str, prefixes: tuple[str, ...]) -> None:
    """Clear what interrupted local writes of files whose names begin so left in a folder."""
    for path in Path(folder).glob(f".*{TEMPORARY_SUFFIX}") if is_local(folder) else ():
        if path.name[1:].startswith(prefixes) and path.is_file():
            path.unlink(missing_ok=True)
