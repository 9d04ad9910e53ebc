"""Local shards kept open, and read ahead: on mounted storage (NFS, Lustre) each opening is a question to a server."""

import contextlib
import os
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterable

from pipeline.io.regular import open_regular

_MOST_OPEN = 64  # of each loader; a process may have 1024 files open, and a block has 16 shards
_TRUSTED_S = 1.0  # after that it is asked again whether the same file is still in its place


class OpenShards:
    """Reads spans of local files. A file that another one has replaced is opened anew within a second."""

    def __init__(self) -> None:
        self._files: OrderedDict[str, tuple[int, float]] = OrderedDict()  # descriptor, when it was last looked at
        weakref.finalize(self, _close, self._files)  # unlike __del__, before the interpreter takes its modules apart

    def read(self, place: str, start: int, length: int) -> bytes:
        """As `storage.read_bytes` of a local file, with the same errors."""
        return os.pread(self._descriptor(place), length, start)

    def read_ahead(self, spans: Iterable[tuple[str, int, int]]) -> None:
        """Ask the system to fetch these (place, start, length) in the background, in this order. Says nothing of what
        is wrong: whoever reads will.
        """
        for place, start, length in spans:
            with contextlib.suppress(OSError):
                os.posix_fadvise(self._descriptor(place), start, length, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        _close(self._files)

    def _descriptor(self, place: str) -> int:
        now = time.monotonic()
        known = self._files.get(place)
        if known is not None:
            descriptor, looked = known
            if now - looked < _TRUSTED_S:
                self._files.move_to_end(place)
                return descriptor
            if _is_at(descriptor, place):
                self._files[place] = descriptor, now
                self._files.move_to_end(place)
                return descriptor
            os.close(self._files.pop(place)[0])
        descriptor = open_regular(place)
        self._files[place] = descriptor, now
        if len(self._files) > _MOST_OPEN:
            os.close(self._files.popitem(last=False)[1][0])
        return descriptor


def _close(files: OrderedDict[str, tuple[int, float]]) -> None:
    while files:
        os.close(files.popitem()[1][0])


def _is_at(descriptor: int, place: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(place))  # noqa: PTH116 - once a second for each shard
    except OSError:
        return False
