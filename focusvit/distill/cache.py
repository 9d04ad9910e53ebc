"""Features of a teacher for views that repeat, on the local disk: each is computed once, whoever asks first.

One file of rows, one of their checksums. A row counts when its checksum fits, so that whatever a kill, a full disk or
two processes at once leave behind is computed again and never learned from.
"""

import math
import shutil
import zlib
from pathlib import Path

import numpy as np

from pipeline.errors import UsageError


class FeatureCache:
    """Rows float16 of one shape, found by number. Processes of one machine may share it."""

    def __init__(self, folder: str, name: str, num_rows: int, row_shape: tuple[int, ...]) -> None:
        """Raises `UsageError` when the disk has no room for all rows."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        rows, sums = place / f"{name}.rows", place / f"{name}.crc32"
        needed = 2 * num_rows * math.prod(row_shape)
        free = shutil.disk_usage(place).free + (rows.stat().st_blocks * 512 if rows.exists() else 0)
        if needed > free:
            raise UsageError(
                f"the teacher's features of all views take {needed / 1e9:.1f} GB and {place} has {free / 1e9:.1f} GB "
                "free. Name another disk with --distill.cache-dir, take fewer --data.views, or 0: then nothing is kept."
            )
        self._rows = _opened(rows, np.float16, (num_rows, *row_shape))
        self._sums = _opened(sums, np.uint32, (num_rows,))

    def find(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(rows float16 (b, ...), which of them are known bool (b,)) of these numbers int64 (b,)."""
        rows = self._rows[numbers]
        known = [said != 0 and _checksum(row) == said for row, said in zip(rows, self._sums[numbers])]
        return rows, np.array(known, np.bool_)

    def put(self, numbers: np.ndarray, rows: np.ndarray) -> None:
        """Keep rows (b, ...) under their numbers."""
        kept = rows.astype(np.float16)
        self._rows[numbers] = kept
        self._sums[numbers] = [_checksum(row) for row in kept]


def _opened(place: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> np.memmap:
    """The file as an array; a new one is empty: zeros that take no room."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    with place.open("ab") as file:
        if file.tell() != size:
            file.truncate(size)
    return np.memmap(place, dtype, "r+", shape=shape)


def _checksum(row: np.ndarray) -> int:
    return zlib.crc32(row.tobytes()) or 1  # 0 means: no row yet
