"""Features of a split, computed once: one row per sample in a memory-mapped file, found again by what made it.

The key covers the weights, the transform, the tokens and the identity of the split, so another checkpoint, crop or
data set can never be served by an old file. Rows are written as they come: memory stays flat in the number of samples.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from focusvit.data.batch import Batch
from focusvit.data.config import DataConfig
from focusvit.data.loader import EvalLoader
from focusvit.drop_in.host_model import Model
from focusvit.precision import Precision, computing
from pipeline.errors import DataError
from pipeline.io import storage
from pipeline.shards.dataset import Split

FEATURE_VERSION = 1  # raised when the same key would mean other numbers


@dataclass(frozen=True)
class FeatureKey:
    """Everything that decides the numbers. `source` is a hash of weights and config, or the name of a fixed map."""

    source: str
    transform: dict[str, Any]
    split_name: str
    split_identity: str
    split_root_hash: str

    @classmethod
    def of(cls, source: str, transform: dict[str, Any], split: Split) -> "FeatureKey":
        return cls(source, transform, split.name, split.identity, split.info.root_hash)

    def digest(self) -> str:
        text = json.dumps({**self.__dict__, "version": FEATURE_VERSION}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class FeatureStore:
    """A folder of feature files `{split}-{key}.npy`, each complete if and only if its `.json` is there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, key: FeatureKey) -> np.ndarray | None:
        """float32 (N, D), read-only and memory-mapped; None when it was not computed yet.

        Raises DataError when the file under this name is of another key or was changed.
        """
        place, note = self._places(key)
        if not note.exists():
            return None
        try:
            said = json.loads(note.read_text())
            made_by, shape, sha256 = said["key"], said["shape"], said["sha256"]
            values = np.load(place, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"the feature file {place} cannot be read ({error}). Remove it and its .json.") from None
        if made_by != key.digest():
            raise DataError(f"the feature file {place} was made by other weights or settings. Remove it and its .json.")
        if list(values.shape) != shape or _digest(values) != sha256:
            raise DataError(f"the feature file {place} is not what was written. Remove it and its .json.")
        return values

    def put(self, key: FeatureKey, parts: Iterable[tuple[np.ndarray, np.ndarray]], num_samples: int) -> np.ndarray:
        """Write parts (sample ids (b,), features (b, D)) and return them as `find` does.

        Raises AssertionError unless every sample came exactly once, ValueError for numbers that are not finite,
        DataError when the disk has no room for all of them.
        """
        place, note = self._places(key)
        self.folder.mkdir(parents=True, exist_ok=True)
        _clear_stale(self.folder)
        temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
        lock = _locked(temporary)
        seen = np.zeros(num_samples, np.int64)
        values: np.ndarray | None = None
        try:
            for sample_ids, rows in parts:
                if values is None:
                    shape = (num_samples, rows.shape[1])
                    values = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
                    _reserve(temporary)
                if not np.isfinite(rows).all():
                    raise ValueError(
                        f"the features of sample {sample_ids[~np.isfinite(rows).all(1)][0]} are not finite"
                    )
                values[sample_ids] = rows
                np.add.at(seen, sample_ids, 1)
            assert values is not None and (seen == 1).all(), f"{int((seen != 1).sum())} samples not seen exactly once"
            values.flush()  # type: ignore[attr-defined]
            said = {"key": key.digest(), "shape": list(values.shape), "sha256": _digest(values), "made_by": vars(key)}
            temporary.replace(place)
            storage.put_json(str(note), said)
        finally:
            temporary.unlink(missing_ok=True)
            lock.close()
        found = self.find(key)
        assert found is not None
        return found

    def _places(self, key: FeatureKey) -> tuple[Path, Path]:
        name = f"{key.split_name}-{key.digest()[:20]}"
        return self.folder / f"{name}.npy", self.folder / f"{name}.json"


@torch.inference_mode()
def model_rows(
    ask: Callable[..., torch.Tensor], batches: Iterable[Batch], device: str, precision: Precision = "fp32"
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(sample ids, float32 (b, .)) of every batch: what `ask` gives of images, maps and tokens, such as a model's
    `features`, which its head reads."""
    for batch in batches:
        here = batch.to(device, non_blocking=True)
        with computing(precision, device):
            rows = ask(here.images, here.maps, here.num_tokens)
        yield here.sample_ids.cpu().numpy(), rows.float().cpu().numpy()


def pixel_features(batches: Iterable[Batch]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The image itself as features: averaged to 16 x 16, each image centred, so that cosine means correlation."""
    for batch in batches:
        small = torch.nn.functional.interpolate(batch.images.float(), size=(16, 16), mode="area")
        rows = small.flatten(1) / 255
        rows = rows - rows.mean(1, keepdim=True)
        yield batch.sample_ids.numpy(), rows.numpy()


def model_batches(
    model: Model, split: Split, data: DataConfig, *, batch_size: int, tokens: int | None, device: str = "cpu"
) -> Iterable[Batch]:
    """Batches of the fixed view as `model` takes them: models that pool without maps (grid, merging) need a budget.
    They come in the main memory, pinned when they go on to a GPU."""
    with_maps = model.config.needs_maps
    shown = tokens if with_maps else None
    pinned = torch.device(device).type == "cuda"
    batches = EvalLoader(split, data, batch_size=batch_size, tokens=shown, with_maps=with_maps, pin_memory=pinned)
    return batches if with_maps else (dataclasses.replace(batch, num_tokens=tokens) for batch in batches)


def _reserve(place: Path) -> None:
    """Give the file its room on the disk now: a mapped page that finds none later ends the process without a word."""
    num_bytes = place.stat().st_size
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    with place.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, num_bytes)
        except OSError as error:
            raise DataError(
                f"the feature file {place} needs {num_bytes / 1e6:.1f} MB ({error.strerror}). Make room there, or name "
                "another disk with --features-folder."
            ) from None


def _locked(temporary: Path) -> IO[bytes]:
    """A new file under this name, locked while the result is open: `_clear_stale` of other processes leaves it alone.

    The lock goes with the process, however it ends; a process id would be another's in the next container.
    """
    while True:
        file = temporary.open("wb")
        with contextlib.suppress(OSError):  # a disk without locks: nobody can clear there either
            fcntl.flock(file, fcntl.LOCK_EX)
        if temporary.exists() and temporary.stat().st_ino == os.fstat(file.fileno()).st_ino:
            return file
        file.close()  # cleared between the opening and the lock


def _clear_stale(folder: Path) -> None:
    """Remove what writers that were killed have left, each as large as all its features."""
    for place in folder.glob(".*.npy.*.tmp"):
        with contextlib.suppress(OSError), place.open("r+b") as file:  # NFS locks what is open for writing
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused while its writer lives
            place.unlink()


def _digest(values: np.ndarray) -> str:
    digest = hashlib.sha256()
    for start in range(0, len(values), 65536):
        digest.update(np.ascontiguousarray(values[start : start + 65536]).tobytes())
    return digest.hexdigest()
