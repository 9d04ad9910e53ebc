"""The bytes of one image: of a file of its own, or of a span of an archive. All that workers get of a source.

An image that is not there is told from a place that is not there: the first is the sample's fault and may be skipped,
the second (a node without the mount, an archive cut meanwhile, expired credentials) never is.
"""

import os
import re
from dataclasses import dataclass
from typing import Protocol

from pipeline.io import storage

_SPAN = re.compile(r"(.+\.tar)@(\d+)\+(\d+)")


class Reader(Protocol):
    """What a worker needs of a source: frozen, picklable, and small whatever the size of the data."""

    @property
    def root(self) -> str: ...

    def read(self, file: str, offset: int, length: int) -> bytes:
        """The encoded bytes of an image. Raises FileNotFoundError or PermissionError when this image alone is off,
        another OSError when its place is (worth another try, and never held against a sample).
        """
        ...


@dataclass(frozen=True)
class FileReader:
    """Images below `root`: files of their own (`length` -1), or spans of archives, which a name by `span` is too."""

    root: str

    def read(self, file: str, offset: int, length: int) -> bytes:
        if length < 0 and (found := _SPAN.fullmatch(file)):
            file, offset, length = found[1], int(found[2]), int(found[3])
        place, whole = storage.join(self.root, file), length < 0
        try:
            data = storage.read_bytes(place) if whole else storage.read_bytes(place, offset, length)
        except (FileNotFoundError, PermissionError) as error:
            if whole and _is_the_files_own(place, error):
                raise
            what = f"{place} cannot be read, nor the folder that holds it" if whole else f"{place} cannot be read"
            raise storage.StoreError(f"{what} ({error}). Is the source mounted and readable on this machine?") from None
        if not whole and len(data) != length:
            raise storage.StoreError(
                f"the archive {place} ends before byte {offset + length}: it was changed or cut after it was listed. "
                f"Fetch it again."
            )
        return data


def span(file: str, offset: int, length: int) -> str:
    """The name of a part of an archive where only a name fits: the label map of a row."""
    return f"{file}@{offset}+{length}"


def _is_the_files_own(place: str, error: OSError) -> bool:
    """Whether the folder of a file that cannot be read is sound, so that the file alone is off."""
    folder = place.rpartition("/")[0]
    if not storage.is_local(place):  # a store refuses all alike when credentials end
        return isinstance(error, FileNotFoundError) and storage.is_folder(folder)
    try:
        with os.scandir(folder) as entries:
            return any(entries)  # a mount point without its mount is empty
    except OSError:
        return False
