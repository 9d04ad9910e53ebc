"""Whether shards and index are what was written: compared with the sidecars, whose hashes were taken at the writing.

A flipped byte in the middle of a JPEG decodes to other pixels, and a flipped class is a class too; only a hash tells.
"""

import hashlib
import threading
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import DataError
from pipeline.io import storage
from pipeline.io.regular import open_regular

from .dataset import Split
from .sample import Sample
from .sidecar import load_sidecar

_WINDOW_BYTES = 8 * 2**20
_hashes: dict[tuple[Any, ...], str] = {}  # of shards that this process has hashed, by place and state of the file
_lock = threading.Lock()


def read_proven(split: Split, sample: int) -> Sample:
    """As `split.read`, after its shard was proven: what every score reads its samples with."""
    prove_shard(split, int(split.index[sample]["shard"]))
    return split.read(sample)


def prove_shard(split: Split, shard: int) -> None:
    """Hash a shard before its first use in this process: 0.5 to 1 s of CPU for a GB. Raises DataError when it, its
    sidecar or its part of the index is damaged or missing. A shard in a store is fetched whole for it.
    """
    place = split.shard_uri(shard)
    state = _state(place)
    if split.proven.get(shard) == state:
        return
    with _lock:
        sidecar = _prove_index(split, shard)
        if (place, state) not in _hashes:
            _hashes[place, state] = _sha256(place)
        if _hashes[place, state] != sidecar["sha256"]:
            raise DataError(_damaged(split, shard, "has other bytes than were written (sha256 differs)"))
        split.proven[shard] = state


def prove_index(split: Split) -> None:
    """Compare places and classes of the whole index with the sidecars. Raises DataError. No shard is read."""
    for shard in np.unique(split.index["shard"]).tolist():
        _prove_index(split, shard)


def prove_bytes(split: Split, shard: int, data: bytes) -> None:
    """As `prove_shard`, of a shard that is in memory."""
    if hashlib.sha256(data).hexdigest() != _prove_index(split, shard)["sha256"]:
        raise DataError(_damaged(split, shard, "has other bytes than were written (sha256 differs)"))


def _prove_index(split: Split, shard: int) -> dict[str, Any]:
    """The sidecar, which fits the index. A split may hold some samples of a shard only."""
    sidecar = load_sidecar(split.uri, split.name, shard)
    if sidecar is None or (sidecar["fingerprint"], sidecar["shard"]) != (split.info.fingerprint, shard):
        raise DataError(_damaged(split, shard, "has no sound sidecar that proves its bytes"))
    rows = split.index[split.shard_starts[shard] : split.shard_starts[shard + 1]]
    offsets = np.array(sidecar["offsets"], np.int64)
    at = np.minimum(np.searchsorted(offsets, rows["offset"]), max(0, len(offsets) - 1))
    columns = {"offset": offsets, "length": sidecar["lengths"], "class_id": sidecar["class_ids"]}
    for name, values in columns.items():
        if not len(offsets) or not np.array_equal(np.asarray(values, np.int64)[at], rows[name]):
            raise DataError(_damaged(split, shard, f"has another {name} in the index than in its sidecar"))
    return sidecar


def _state(place: str) -> tuple[int, ...]:
    """What a proof holds for: a local file as it is now. Objects of a store do not change while they are read."""
    if not storage.is_local(place):
        return ()
    try:
        status = Path(place).stat()
    except OSError:
        return ()  # it is told by who opens it
    return status.st_size, status.st_mtime_ns


def _sha256(place: str) -> str:
    try:
        if storage.is_local(place):
            with open(open_regular(place), "rb", buffering=0) as file:  # noqa: PTH123
                return hashlib.file_digest(file, "sha256").hexdigest()
        total, start = hashlib.sha256(), 0
        while data := storage.read_bytes(place, start, _WINDOW_BYTES):
            total.update(data)
            start += len(data)
            if len(data) < _WINDOW_BYTES:
                break
        return total.hexdigest()
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise DataError(
            f"the shard {place} cannot be read ({error}). `focusvit verify` lists what is missing."
        ) from None


def _damaged(split: Split, shard: int, what: str) -> str:
    return (
        f"the shard {split.shard_uri(shard)} {what}. `focusvit verify {split.uri} --repair` builds it again, to the "
        f"same bytes."
    )
