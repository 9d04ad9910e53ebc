"""The splits that a data set's files speak of: those with a sound plan, and those whose plan is lost."""

import hashlib
from dataclasses import dataclass
from typing import Any

from pipeline.errors import DataError, UsageError
from pipeline.io import storage
from pipeline.plan.plan import Plan, load_plan
from pipeline.shards.build import ShardSpec
from pipeline.shards.dataset import STATE_FOLDER, SplitInfo, open_dataset, plan_uri
from pipeline.shards.description import is_whole, shard_specs
from pipeline.shards.sample import FORMAT_VERSION
from pipeline.shards.sidecar import load_sidecar
from pipeline.sources.readers import FileReader


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is off."""

    file: str  # relative to the data set
    text: str
    shard: int | None = None  # the shard to build again, in `split`
    split: str | None = None


@dataclass(frozen=True, kw_only=True)
class StoredSplit:
    """A split as its plan states it, with the specs that made it."""

    plan: Plan
    description: dict[str, Any]
    specs: list[ShardSpec]


@dataclass(frozen=True, kw_only=True)
class Found:
    """A data set as its files are now."""

    problems: list[Problem]
    splits: dict[str, StoredSplit]
    lost: set[str]  # splits without a sound plan: their shards cannot be told from others
    num_samples: int  # decoded


def open_splits(uri: str, problems: list[Problem]) -> tuple[dict[str, StoredSplit], set[str]]:
    """(splits with a sound plan, names of those whose plan is lost). What is off with plans is added to `problems`.

    Raises UsageError when there is no data set, or one of another format version.
    """
    found, lost = {}, set()
    for split in _names(uri):
        file = f"{STATE_FOLDER}/plan-{split}.parquet"
        try:
            plan, description = load_sound_plan(uri, split)
        except DataError as error:
            problems.append(Problem(file=file, text=str(error), split=split))
            lost.add(split)
            continue
        if _other_plan_file(uri, split):
            text = "is not the file that dataset.json names: places of images in it may be wrong"
            problems.append(Problem(file=file, text=text, split=split))
        specs = shard_specs(uri, plan, description, FileReader(uri))  # checking a shard reads no image of the source
        found[split] = StoredSplit(plan=plan, description=description, specs=specs)
    if not found and not lost:
        raise UsageError(f"{uri} holds no data set: there is no plan in {STATE_FOLDER}/. Name the folder to verify.")
    return found, lost


def stated_splits(uri: str) -> dict[str, SplitInfo]:
    """What `dataset.json` says of the splits; empty when it is missing or damaged."""
    try:
        return open_dataset(uri).splits
    except (UsageError, DataError):
        return {}


def _names(uri: str) -> list[str]:
    """Splits with a plan, and those of `dataset.json` of which at least a shard or a sidecar is there."""
    names = storage.list_names(storage.join(uri, STATE_FOLDER))
    planned = {name[5:-8] for name in names if name.startswith("plan-") and name.endswith(".parquet")}
    parts = [*storage.list_names(uri), *storage.list_names(storage.join(uri, STATE_FOLDER, "shards"))]
    there = {name.rpartition("-")[0] for name in parts if name.endswith((".tar", ".json"))}
    return sorted(planned | (stated_splits(uri).keys() & there))


def load_sound_plan(uri: str, split: str) -> tuple[Plan, dict[str, Any]]:
    """The stored plan. Raises DataError, a sentence without its subject, when it is missing or damaged, or not the one
    that the shards were made by.
    """
    place = plan_uri(uri, split)
    try:
        plan, description = load_plan(place)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        why = "is missing" if type(error) is FileNotFoundError else f"cannot be read: {error}"
        raise DataError(f"{why}. {_HINT}") from None
    except DataError as error:
        raise DataError(f"{error} {_HINT}") from None
    if not is_whole(description) or plan.split != split:
        raise DataError(f"is damaged: its description does not have the digests or the name that it states. {_HINT}")
    if description["format_version"] != FORMAT_VERSION:
        raise UsageError(
            f"{place} is of format version {description['format_version']}; this code reads version {FORMAT_VERSION}. "
            f"Use the release that wrote it."
        )
    made_by = _fingerprints(uri, split, plan.num_shards, description["fingerprint"])
    if made_by and description["fingerprint"] not in made_by:
        raise DataError(
            f"is the plan of other shards: its fingerprint is {description['fingerprint'][:12]}, that of the split "
            f"{min(made_by)[:12]}. {_HINT}"
        )
    return plan, description


_HINT = "The same `focusvit preprocess` as before writes it anew, and keeps the shards; --repair tries the same."


def _fingerprints(uri: str, split: str, num_shards: int, wanted: str) -> set[str]:
    """What `dataset.json` and the sidecars say that the shards were made by; stops at the first that says `wanted`."""
    stated = stated_splits(uri).get(split)
    found = {stated.fingerprint} if stated else set()
    for shard in range(num_shards):
        if wanted in found:
            break
        sidecar = load_sidecar(uri, split, shard)
        found |= {sidecar["fingerprint"]} if sidecar else set()
    return found


def _other_plan_file(uri: str, split: str) -> bool:
    stated = stated_splits(uri).get(split)  # None: not finished, or damaged itself: that is found elsewhere
    if stated is None:
        return False
    return hashlib.sha256(storage.read_bytes(plan_uri(uri, split))).hexdigest() != stated.plan_sha256
