"""The bytes of one image: of a file of its own, or of a span of an archive. All that workers get of a source.

An image that is not there is told from a place that is not there: the first is the sample's fault and may be skipped,
the second (a node without the mount, an archive cut meanwhile, expired credentials) never is.
"""

import os
import re
from dataclasses import dataclass

from pipeline.io import storage

_SPAN = re.compile(r"(.+)@(\d+)\+(\d+)")


@dataclass(frozen=True)
class FileReader:
    """Each image is a file below `root`."""

    root: str

    def read(self, file: str, offset: int, length: int) -> bytes:
        place = storage.join(self.root, file)
        try:
            return storage.read_bytes(place)
        except (FileNotFoundError, PermissionError) as error:
            if _is_the_files_own(place, error):
                raise
            raise storage.StoreError(
                f"{place} cannot be read, nor the folder that holds it ({error}). Is the source mounted and readable "
                f"on this machine?"
            ) from None


@dataclass(frozen=True)
class SpanReader:
    """Images are spans of archives in the folder `root`; a file named by `span` is one too."""

    root: str

    def read(self, file: str, offset: int, length: int) -> bytes:
        if length < 0 and (found := _SPAN.fullmatch(file)):
            file, offset, length = found[1], int(found[2]), int(found[3])
        place = storage.join(self.root, file)
        try:
            data = storage.read_bytes(place, offset, length)
        except (FileNotFoundError, PermissionError) as error:
            raise storage.StoreError(
                f"the archive {place} cannot be read ({error}). Is the source mounted and readable on this machine?"
            ) from None
        if len(data) != length:
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
