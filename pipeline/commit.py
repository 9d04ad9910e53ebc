"""What makes a split part of a data set: the checks before it, and the index and `dataset.json` after it."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from . import storage
from .build import ShardTask, read_sidecar
from .dataset import DATASET_FILE, INDEX_DTYPE, STATE_FOLDER, Dataset, SplitInfo, index_uri, open_dataset, plan_uri
from .errors import DataError, UsageError
from .fingerprint import byte_versions, digest
from .image import ImageConfig
from .plan import Plan, load_plan
from .sample import FORMAT_VERSION
from .sources import Source
from .sources.folder import shorten
from .superpixels import SuperpixelConfig


def describe(plan: Plan, image: ImageConfig, superpixels: SuperpixelConfig) -> dict[str, Any]:
    """Everything that decides the bytes of a split, with its two digests.

    `identity` covers plan and config: the same samples with the same superpixels. `fingerprint` adds the versions
    that shape bytes: shards of one fingerprint may stand beside each other.
    """
    content: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "num_samples": plan.num_samples,
        "num_shards": len(plan.bounds) - 1,
        "num_classes": len(plan.classes),
        "plan": plan.digest,
        "image": asdict(image),
        "superpixels": asdict(superpixels),
    }
    identity = digest(content)
    content["versions"] = byte_versions()
    return {**content, "identity": identity, "fingerprint": digest(content)}


def check_out(out: str, plan: Plan, description: dict[str, Any]) -> None:
    """Refuse a folder that holds another plan of this split, or splits that do not fit. Raises UsageError."""
    if storage.is_local(out) and storage.exists(out) and not storage.is_folder(out):
        raise UsageError(f"--out {out} is a file; name a folder (it is made when it is not there).")
    place = plan_uri(out, plan.split)
    if storage.exists(place):
        stored, before = load_plan(place)
        differing = _differences(before, description)
        if differing:
            raise UsageError(
                f"{out} already holds another plan of split '{plan.split}', which differs in: {'; '.join(differing)}."
                f"{_other_samples(stored, plan)} Use another --out, or the settings and the source of before; to start "
                f"again, remove {out}."
            )
    elif any(name.startswith(f"{plan.split}-") and name.endswith(".tar") for name in storage.list_names(out)):
        raise UsageError(
            f"{out} holds shards of split '{plan.split}', but not their plan {place}. Use another --out, or remove "
            f"them first."
        )
    _check_other_splits(out, plan, description)


def _check_other_splits(out: str, plan: Plan, description: dict[str, Any]) -> None:
    for name in storage.list_names(storage.join(out, STATE_FOLDER)):
        other = name.removeprefix("plan-").removesuffix(".parquet")
        if not name.startswith("plan-") or other == plan.split:
            continue
        stored, before = load_plan(storage.join(out, STATE_FOLDER, name))
        if stored.classes and plan.classes and stored.classes != plan.classes:
            here, there = set(plan.classes), set(stored.classes)
            raise UsageError(
                f"the {len(here)} classes of split '{plan.split}' differ from the {len(there)} of split '{other}' in "
                f"{out}: only in '{plan.split}': {shorten(sorted(here - there))}; only in '{other}': "
                f"{shorten(sorted(there - here))}. One data set has one class list: complete the source, or use "
                f"another --out."
            )
        keys = ("format_version", "image", "superpixels")
        differing = _differences({k: before.get(k) for k in keys}, {k: description[k] for k in keys})
        if differing:
            raise UsageError(
                f"split '{other}' in {out} was made with other settings: {'; '.join(differing)}. The splits of one "
                f"data set share them: use these, or another --out."
            )


def _differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """'superpixels.compactness (there 10.0, now 20.0)' for each field that differs."""
    found = []
    for name in sorted(before.keys() | now.keys()):
        there, here = before.get(name), now.get(name)
        if there == here or name in ("identity", "fingerprint"):
            continue
        if isinstance(there, dict) and isinstance(here, dict):
            found += _differences(there, here, f"{prefix}{name}.")
        else:
            short = [value[:12] if isinstance(value, str) else value for value in (there, here)]
            found.append(f"{prefix}{name} (there {short[0]}, now {short[1]})")
    return found


def _other_samples(stored: Plan, plan: Plan) -> str:
    there, here = (set(p.table.column("source").to_pylist()) for p in (stored, plan))
    if there == here:
        return ""
    return (
        f" Samples that only the stored plan has: {shorten(sorted(there - here), 3)}; "
        f"only the source now: {shorten(sorted(here - there), 3)}."
    )


def finish_split(
    out: str, plan: Plan, description: dict[str, Any], tasks: Sequence[ShardTask], source: Source
) -> SplitInfo:
    """Write the sample index and enter the split in `dataset.json`, the last act. Raises DataError when a shard is
    not finished.
    """
    sidecars = [read_sidecar(task) for task in tasks]
    missing = [task.name for task, sidecar in zip(tasks, sidecars) if not sidecar]
    if missing:
        raise DataError(f"{len(missing)} shards in {out} are not finished: {shorten(missing)}. Run the command again.")
    index = build_index([sidecar for sidecar in sidecars if sidecar])
    if not len(index):
        raise DataError(f"none of the {plan.num_samples} images of split '{plan.split}' could be prepared.")
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, index, version=(1, 0))
    storage.put(index_uri(out, plan.split), buffer.getvalue())
    info = SplitInfo(
        num_samples=len(index),
        num_shards=len(tasks),
        num_skipped=sum(len(sidecar["skipped"]) for sidecar in sidecars if sidecar),
        num_bytes=sum(sidecar["size_bytes"] for sidecar in sidecars if sidecar),
        identity=description["identity"],
        fingerprint=description["fingerprint"],
        root_hash=root_hash([sidecar["sha256"] for sidecar in sidecars if sidecar]),
        source=f"{source.kind} at {source.root}",
    )
    write_dataset(out, plan, description, info)
    return info


def build_index(sidecars: Sequence[dict[str, Any]]) -> np.ndarray:
    """(num_samples,) of INDEX_DTYPE, in shard order."""
    parts = []
    for sidecar in sidecars:
        part = np.zeros(sidecar["num_samples"], INDEX_DTYPE)
        part["shard"], part["offset"] = sidecar["shard"], sidecar["offsets"]
        part["length"], part["class_id"] = sidecar["lengths"], sidecar["class_ids"]
        parts.append(part)
    return np.concatenate(parts)


def root_hash(tar_hashes: Sequence[str]) -> str:
    """sha256 over the raw sha256 digests of the tars, in shard order."""
    return hashlib.sha256(b"".join(bytes.fromhex(value) for value in tar_hashes)).hexdigest()


def write_dataset(out: str, plan: Plan, description: dict[str, Any], info: SplitInfo) -> None:
    """Enter or replace one split; the others stay."""
    before: Dataset | None = open_dataset(out) if storage.exists(storage.join(out, DATASET_FILE)) else None
    splits = {**(before.splits if before else {}), plan.split: info}
    storage.put_json(
        storage.join(out, DATASET_FILE),
        {
            "format": "focusvit shards",
            "format_version": FORMAT_VERSION,
            "classes": list(plan.classes or (before.classes if before else ())),
            "image": description["image"],
            "superpixels": description["superpixels"],
            "splits": {name: asdict(value) for name, value in splits.items()},
        },
    )
