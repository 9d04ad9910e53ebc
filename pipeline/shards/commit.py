"""What makes a split part of a data set: the checks before it, and the index and its entry after it."""

import hashlib
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.errors import DataError, UsageError, shorten
from pipeline.io import storage
from pipeline.io.scan import in_parallel
from pipeline.plan.plan import Plan, load_plan, read_head

from .build import ShardSpec
from .dataset import (
    COLUMNS,
    DATASET_FILE,
    INDEX_DTYPE,
    STATE_FOLDER,
    SplitInfo,
    errors_uri,
    index_uri,
    plan_uri,
    shard_name,
)
from .description import differences, is_whole
from .entry import enter_split
from .interop import TIMM_FILE, wids_index, wids_name
from .overlap import refuse_same_places
from .sidecar import load_sidecar, read_sidecar


def check_out(out: str, plan: Plan, description: dict[str, Any]) -> bool:
    """Refuse a folder that holds another plan of this split, or splits that do not fit. Raises UsageError.

    Returns whether the stored plan is this one to the last offset; otherwise it is to be stored.
    """
    same = False
    if storage.is_local(out) and storage.exists(out) and not storage.is_folder(out):
        raise UsageError(f"--out {out} is a file; name a folder (it is made when it is not there).")
    place = plan_uri(out, plan.split)
    stored = _load_sound(place)
    if stored:
        same = stored[0].table.equals(plan.table) and stored[1] == description
        differing = differences(stored[1], description)
        if differing:
            raise UsageError(
                f"{out} already holds another plan of split '{plan.split}', which differs in: {'; '.join(differing)}."
                f"{_other_samples(stored[0], plan)} Use another --out, or the settings and the source of before; to "
                f"start again, remove {out}."
            )
    else:
        _check_shards(out, plan, description["fingerprint"])
    _check_other_splits(out, plan, description)
    return same


def _load_sound(place: str) -> tuple[Plan, dict[str, Any]] | None:
    """None when the plan is absent or damaged."""
    try:
        stored = load_plan(place)
        return stored if is_whole(stored[1]) else None
    except (FileNotFoundError, DataError):
        return None


def _check_shards(out: str, plan: Plan, fingerprint: str) -> None:
    """Shards without a sound plan may stay when a sidecar names the fingerprint of now: then the plan is this one."""
    there = set(storage.list_names(out))
    if not any(name.startswith(f"{plan.split}-") and name.endswith(".tar") for name in there):
        return
    for shard in range(plan.num_shards):
        sidecar = load_sidecar(out, plan.split, shard) if shard_name(plan.split, shard) in there else None
        if sidecar and sidecar["fingerprint"] == fingerprint:
            return
    raise UsageError(
        f"{out} holds shards of split '{plan.split}', but their plan {plan_uri(out, plan.split)} is missing or "
        f"damaged, and they are not of this source and these settings. Run it as before, use another --out, or remove "
        f"them first."
    )


def known_classes(out: str, split: str) -> tuple[str, ...]:
    """The class list of the splits that a data set has besides `split`; () when there is none. Raises DataError."""
    return next((classes for _, classes, _ in _other_splits(out, split) if classes), ())


def _other_splits(out: str, split: str) -> Iterator[tuple[str, tuple[str, ...], dict[str, Any]]]:
    """(name, classes, description) of each planned split but this one."""
    for name in storage.list_names(storage.join(out, STATE_FOLDER)):
        other = name.removeprefix("plan-").removesuffix(".parquet")
        if name.startswith("plan-") and other != split:
            yield other, *read_head(plan_uri(out, other))


def other_splits(out: str, split: str) -> list[str]:
    """Names of the splits that are planned in a data set, but this one."""
    return [other for other, _, _ in _other_splits(out, split)]


def _check_other_splits(out: str, plan: Plan, description: dict[str, Any]) -> None:
    for other, classes, before in _other_splits(out, plan.split):
        if classes and plan.classes and classes != plan.classes:
            here, there = set(plan.classes), set(classes)
            order = " Make the split with all classes first." if there < here else ""
            raise UsageError(
                f"the {len(here)} classes of split '{plan.split}' differ from the {len(there)} of split '{other}' in "
                f"{out}: only in '{plan.split}': {shorten(sorted(here - there))}; only in '{other}': "
                f"{shorten(sorted(there - here))}. One data set has one class list; a split may lack classes, not "
                f"add any.{order} Complete the source, or use another --out."
            )
        keys = ("format_version", "image", "superpixels")
        differing = differences({k: before.get(k) for k in keys}, {k: description[k] for k in keys})
        if differing:
            raise UsageError(
                f"split '{other}' in {out} was made with other settings: {'; '.join(differing)}. The splits of one "
                f"data set share them: use these, or another --out."
            )
        root = before["origin"].get("root")
        if root and root == description["origin"].get("root"):
            refuse_same_places(out, plan, other)


def _other_samples(stored: Plan, plan: Plan) -> str:
    there, here = (set(p.table.column("source").to_pylist()) for p in (stored, plan))
    if there == here:
        return ""
    return (
        f" Samples that only the stored plan has: {shorten(sorted(there - here), 3)}; "
        f"only the source now: {shorten(sorted(here - there), 3)}."
    )


def clear_leftovers(out: str, split: str) -> None:
    """Remove what interrupted local writes of this split left: hidden files that nothing else looks at. `out` exists.

    Under the lock, since a run of another split may be writing `dataset.json` just now.
    """
    state, kinds = storage.join(out, STATE_FOLDER), ("wids", "plan", "index", "errors")
    prefixes = (f"{split}-", *(f"{kind}-{split}." for kind in kinds), TIMM_FILE, DATASET_FILE)
    with storage.locked(out):
        for folder in (out, state, storage.join(state, "shards"), storage.join(state, "dali")):
            storage.remove_temporary(folder, prefixes)


def finish_split(out: str, plan: Plan, description: dict[str, Any], specs: Sequence[ShardSpec]) -> SplitInfo:
    """Write what follows from the shards and enter the split in `dataset.json`, the last act. Raises DataError when
    a shard is not finished.
    """
    info = write_derived(out, plan, description, specs)
    enter_split(out, plan, description, info)
    return info


def write_derived(out: str, plan: Plan, description: dict[str, Any], specs: Sequence[ShardSpec]) -> SplitInfo:
    """Write the files of a split that follow from its shards; returns what `dataset.json` is to say of it. Raises
    DataError when a shard is not finished, or none holds a sample.
    """
    found = dict(zip([spec.name for spec in specs], in_parallel(_packed_sidecar, specs)))
    missing = [name for name, sidecar in found.items() if not sidecar]
    if missing:
        raise DataError(f"{len(missing)} shards in {out} are not finished: {shorten(missing)}. Run the command again.")
    sidecars = [sidecar for sidecar in found.values() if sidecar]
    if not any(sidecar["num_samples"] for sidecar in sidecars):
        raise DataError(f"none of the {plan.num_samples} images of split '{plan.split}' could be prepared.")
    for place, data in derived_files(out, plan.split, sidecars).items():
        storage.put(place, data)
    if not any(sidecar["skipped"] for sidecar in sidecars):
        storage.remove(errors_uri(out, plan.split))
    return split_info(out, plan, description, sidecars)


def _packed_sidecar(spec: ShardSpec) -> dict[str, Any] | None:
    """A sidecar with its columns as arrays: as lists those of a million samples take half a gigabyte."""
    sidecar = read_sidecar(spec)
    if sidecar:
        for name in sidecar.keys() & set(COLUMNS):
            sidecar[name] = np.array(sidecar[name], np.int64)
    return sidecar


def derived_files(out: str, split: str, sidecars: Sequence[dict[str, Any]]) -> dict[str, bytes]:
    """Files of a split that follow from its sidecars, by place: sample index, error table, the index for wids."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, build_index(sidecars), version=(1, 0))
    files = {
        index_uri(out, split): buffer.getvalue(),
        storage.join(out, wids_name(split)): wids_index(split, sidecars),
    }
    skipped = [sample for sidecar in sidecars for sample in sidecar["skipped"]]
    if skipped:
        files[errors_uri(out, split)] = error_table(skipped)
    return files


def error_table(bad: Sequence[dict[str, Any]]) -> bytes:
    """Bad samples with their reasons, by source id."""
    return storage.json_bytes(sorted(bad, key=lambda sample: sample["source"]))


def split_info(out: str, plan: Plan, description: dict[str, Any], sidecars: Sequence[dict[str, Any]]) -> SplitInfo:
    """What `dataset.json` says about a finished split."""
    origin = description["origin"]
    return SplitInfo(
        num_samples=sum(sidecar["num_samples"] for sidecar in sidecars),
        num_shards=len(sidecars),
        num_skipped=sum(len(sidecar["skipped"]) for sidecar in sidecars),
        num_bytes=sum(sidecar["size_bytes"] for sidecar in sidecars),
        identity=description["identity"],
        fingerprint=description["fingerprint"],
        root_hash=root_hash([sidecar["sha256"] for sidecar in sidecars]),
        source=f"{origin['kind']} at {origin['uri']}",
        plan_sha256=hashlib.sha256(storage.read_bytes(plan_uri(out, plan.split))).hexdigest(),
    )


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
