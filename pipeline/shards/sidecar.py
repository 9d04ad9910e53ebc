"""The sidecar of a shard: the mark that it is finished, and the index of its samples."""

from typing import Any

from pipeline.io import storage

from .build import ShardSpec
from .dataset import sidecar_uri
from .fingerprint import digest


def sidecar_bytes(sidecar: dict[str, Any]) -> bytes:
    """The file of a sidecar, with the hash of its own content."""
    return storage.json_bytes({**sidecar, "sidecar_sha256": digest(sidecar)})


def read_sidecar(spec: ShardSpec) -> dict[str, Any] | None:
    """The sidecar of a finished shard; None when the shard has to be built (again).

    Finished means: the sidecar is whole, of this fingerprint, and the tar beside it has the stated size.
    """
    try:
        sidecar = storage.read_json(sidecar_uri(spec.out, spec.split, spec.shard))
        stated = sidecar.pop("sidecar_sha256")
        whole = digest(sidecar) == stated and sidecar["fingerprint"] == spec.fingerprint
        return sidecar if whole and storage.size(storage.join(spec.out, spec.name)) == sidecar["size_bytes"] else None
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
