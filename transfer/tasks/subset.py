"""A part of a data set as a data set of its own: what the training loop needs to see only some training samples.

Samples are copied as the bytes that they are in their tar, so nothing is decoded and every later check still holds.
"""

import dataclasses
import hashlib
import io
from typing import Any

import numpy as np

from pipeline.io import storage
from pipeline.shards.build import build_shard
from pipeline.shards.commit import build_index, root_hash
from pipeline.shards.dataset import DATASET_FILE, Dataset, Split, SplitInfo, index_uri, shard_name, sidecar_uri
from pipeline.shards.proof import prove_shard
from pipeline.shards.sidecar import sidecar_bytes, sidecar_of

_PER_SHARD = 1000


Rows = list[tuple[Split, np.ndarray]]
"""Where from, and the sample numbers there (int64); one after another."""


def write_subset(dataset: Dataset, parts: dict[str, Rows], folder: str) -> str:
    """Write `folder` with one split per entry of `parts`. Returns it.

    A folder that is complete (`dataset.json` is written last) is left as it is. Classes, superpixels and image
    settings are those of `dataset`; identities name the origin and the chosen samples.
    """
    if storage.exists(storage.join(folder, DATASET_FILE)):
        return folder
    infos = {name: _write_split(name, rows, folder) for name, rows in parts.items()}
    content = storage.read_json(storage.join(dataset.uri, DATASET_FILE))
    content["splits"] = {name: dataclasses.asdict(info) for name, info in infos.items()}
    storage.put_json(storage.join(folder, DATASET_FILE), content)
    return folder


def subset_identity(rows: Rows) -> str:
    """A digest of the splits' identities and of the chosen samples."""
    digest = hashlib.sha256()
    for split, numbers in rows:
        digest.update(f"{split.identity} {split.info.root_hash}".encode())
        digest.update(np.ascontiguousarray(numbers, np.int64).tobytes())
    return digest.hexdigest()


def limited(split: Split, most: int | None, seed: int) -> Split:
    """The split, or a seeded draw of `most` of its samples under an identity of its own, in their order."""
    if most is None or split.num_samples <= most:
        return split
    rows = np.sort(np.random.default_rng(seed).permutation(split.num_samples)[:most])
    info = dataclasses.replace(split.info, num_samples=most, identity=subset_identity([(split, rows)]))
    return dataclasses.replace(split, info=info, index=split.index[rows])


def _write_split(name: str, rows: Rows, folder: str) -> SplitInfo:
    chosen = [(split, int(number)) for split, numbers in rows for number in numbers]
    identity, sidecars = subset_identity(rows), []
    for shard, start in enumerate(range(0, len(chosen), _PER_SHARD)):
        here = (_row(*one) for one in chosen[start : start + _PER_SHARD])
        built = build_shard(here, lambda row: row["members"])
        storage.put(storage.join(folder, shard_name(name, shard)), built.data)
        sidecars.append(sidecar_of(built, identity, shard, {}))
        storage.put(sidecar_uri(folder, name, shard), sidecar_bytes(sidecars[-1]))
    buffer = io.BytesIO()
    np.save(buffer, build_index(sidecars))
    storage.put(index_uri(folder, name), buffer.getvalue())
    return SplitInfo(
        num_samples=len(chosen),
        num_shards=-(-len(chosen) // _PER_SHARD),
        num_skipped=0,
        num_bytes=sum(sidecar["size_bytes"] for sidecar in sidecars),
        identity=identity,
        fingerprint=identity,
        root_hash=root_hash([sidecar["sha256"] for sidecar in sidecars]),
        source=", ".join(f"{len(numbers)} samples of split '{split.name}' at {split.uri}" for split, numbers in rows),
    )


def _row(split: Split, number: int) -> dict[str, Any]:
    """Key, class and members of a sample, from a proven shard: what is copied gets a hash of its own."""
    prove_shard(split, int(split.index[number]["shard"]))
    key, members = split.read_members(number)
    return {"key": key, "class_id": int(split.index[number]["class_id"]), "members": members}
