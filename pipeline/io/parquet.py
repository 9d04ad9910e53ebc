"""Parquet files, local or in a store: the footer is read, and then only what is asked for."""

import io
import os
from typing import Any

from . import storage
from .regular import open_regular


def open_parquet_file(uri: str) -> Any:
    """A `pyarrow.parquet.ParquetFile`. Raises as Arrow and `storage`.

    To be read without Arrow's threads, as `use_threads=False`: they would share the place in an `ObjectFile`, and one
    that has just started can abort a process that ends. `pre_buffer` is read by one whatever `use_threads` says.
    """
    import pyarrow.parquet as pq

    if not storage.is_local(uri):
        return pq.ParquetFile(ObjectFile(uri), pre_buffer=False)
    os.close(open_regular(uri))  # Arrow would wait at a pipe
    return pq.ParquetFile(uri, pre_buffer=False)


class ObjectFile(io.RawIOBase):
    """An object as a file for readers that seek (parquet): asks for what is read and no more, and asks again as
    `storage` does. fsspec's own files fetch 5 to 50 MB at a time and give up at once.
    """

    def __init__(self, uri: str) -> None:
        self._uri, self._position = uri, 0
        self._size = storage.size(uri)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def read(self, size: int = -1) -> bytes:
        rest = max(0, self._size - self._position)
        wanted = rest if size < 0 else min(size, rest)
        data = storage.read_bytes(self._uri, self._position, wanted) if wanted else b""
        self._position += len(data)
        return data
