"""Finding one's way in large files: many small reads from one of them, and many files or folders at a time.

A header read near costs a system call, far a request of 20 ms. So a far file is read in large windows: the bytes
between two headers come faster than the next answer would.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from pipeline.errors import UsageError

from . import storage
from .passed import PassedOver
from .regular import open_regular

Item = TypeVar("Item")
Result = TypeVar("Result")

THREADS = 16  # waiting for a disk or a store, not computing
WINDOW_BYTES = 4 * 2**20  # what comes in about the time of one answer; THREADS of them fit the driver


class Scan:
    """`scan(offset, length)` gives bytes of one file; a context manager, for one thread. Raises as `storage`."""

    def __init__(self, uri: str) -> None:
        self._uri, self._file = uri, -1
        self.size = storage.size(uri)
        self._start, self._window = 0, b""

    def __enter__(self) -> "Scan":
        if storage.is_local(self._uri):
            try:
                self._file = open_regular(self._uri)
            except PermissionError as error:
                raise UsageError(f"{self._uri} may not be read by this user ({error.strerror}). Allow it.") from None
            if hasattr(os, "posix_fadvise"):  # without this Linux reads 128 KB for each header of 512 bytes
                os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_RANDOM)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def __call__(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`, fewer only where the file ends."""
        if self._file >= 0:
            return os.pread(self._file, length, offset)
        start = offset - self._start
        if not 0 <= start <= len(self._window) - length:
            wanted = min(max(length, WINDOW_BYTES), self.size - offset)
            self._window = storage.read_bytes(self._uri, offset, wanted) if wanted > 0 else b""
            self._start = offset
            start = 0
        return self._window[start : start + length]


def find_in_parallel(uri: str, leave_out: Sequence[str] = (), passed: PassedOver | None = None) -> Iterator[str]:
    """As `storage.find_files`; folders of a store are listed side by side, one at a time is held for each thread."""
    if storage.is_local(uri):
        yield from storage.find_files(uri, leave_out, passed)
        return
    names = [name for name in storage.list_names(uri) if not name.startswith(".") and name not in leave_out]
    listings = in_parallel(lambda name: list(storage.find_files(storage.join(uri, name))), names)
    away = tuple(f"{folder}/" for folder in leave_out)
    for name, found in zip(names, listings):
        for path in (f"{name}/{path}" if path else name for path in found):  # below a file is the file itself
            if not path.startswith(away):
                yield path


def in_parallel(work: Callable[[Item], Result], items: Iterable[Item], threads: int = THREADS) -> Iterator[Result]:
    """Results in the order of `items`, from threads. At most `threads` are ahead of the consumer, so that a listing of
    millions is never held at once. The first exception of `work` ends it.
    """
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[Future[Result]] = deque()
        try:
            for item in items:
                ahead.append(pool.submit(work, item))
                if len(ahead) >= threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()
