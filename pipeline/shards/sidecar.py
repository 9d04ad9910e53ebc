"""The sidecar of a shard: the mark that it is finished, and the index of its samples."""

import hashlib
from typing import TYPE_CHECKING, Any

from pipeline.io import storage

from .dataset import COLUMNS, sidecar_uri
from .fingerprint import digest
from .sample import FORMAT_VERSION

if TYPE_CHECKING:  # readers of shards need nothing of what builds them
    from .build import BuiltShard, ShardSpec

_LATER = "content_ids"  # sidecars of before lack it


def sidecar_of(built: "BuiltShard", fingerprint: str, shard: int, timing: dict[str, Any]) -> dict[str, Any]:
    """What the sidecar of a shard states."""
    return {
        "format_version": FORMAT_VERSION,
        "fingerprint": fingerprint,
        "shard": shard,
        "sha256": hashlib.sha256(built.data).hexdigest(),
        "size_bytes": len(built.data),
        "num_samples": len(built.columns["offsets"]),
        **built.columns,
        "skipped": built.bad,
        "timing": timing,
    }


def sidecar_bytes(sidecar: dict[str, Any]) -> bytes:
    """The file of a sidecar, with the hash of its own content."""
    return storage.json_bytes({**sidecar, "sidecar_sha256": digest(sidecar)})


def load_sidecar(uri: str, split: str, shard: int) -> dict[str, Any] | None:
    """The sidecar as it was written; None when it is missing, damaged or of another shape."""
    try:
        sidecar = storage.read_json(sidecar_uri(uri, split, shard))
        stated = sidecar.pop("sidecar_sha256")
        whole = digest(sidecar) == stated and _is_shaped(sidecar)
        return sidecar if whole else None
    except (FileNotFoundError, PermissionError, IsADirectoryError, ValueError, KeyError, TypeError, AttributeError):
        return None


def read_sidecar(spec: "ShardSpec") -> dict[str, Any] | None:
    """The sidecar of a finished shard; None when the shard has to be built (again).

    Finished means: the sidecar is whole, of this fingerprint, and the tar beside it has the stated size.
    """
    sidecar = load_sidecar(spec.out, spec.split, spec.shard)
    if sidecar is None or sidecar["fingerprint"] != spec.fingerprint:
        return None
    try:
        return sidecar if storage.size(storage.join(spec.out, spec.name)) == sidecar["size_bytes"] else None
    except (FileNotFoundError, PermissionError):
        return None


def _is_shaped(sidecar: dict[str, Any]) -> bool:
    """Whether it can be read as a sidecar at all: its hash alone says only that nobody changed it by accident."""
    columns = [sidecar[name] for name in COLUMNS if name != _LATER or name in sidecar]
    numbers = [sidecar[name] for name in ("shard", "size_bytes", "num_samples")]
    return (
        all(isinstance(number, int) for number in numbers)
        and all(len(column) == sidecar["num_samples"] and set(map(type, column)) <= {int} for column in columns)
        and len(bytes.fromhex(sidecar["sha256"])) == 32
        and isinstance(sidecar["fingerprint"], str)
        and all(skipped.keys() == {"source", "key", "reason"} for skipped in sidecar["skipped"])
    )
