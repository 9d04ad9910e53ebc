"""Damaged shards, built again to the same bytes; and the files that follow from them, written again."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from pipeline.errors import DataError, UsageError
from pipeline.io import storage
from pipeline.plan.plan import Plan, relocate, save_plan
from pipeline.secrets import HIDDEN, masked
from pipeline.shards.build import ShardSpec
from pipeline.shards.commit import finish_split, root_hash
from pipeline.shards.dataset import DATASET_FILE, open_dataset, plan_uri, sidecar_uri
from pipeline.shards.fingerprint import byte_versions
from pipeline.shards.sidecar import read_sidecar
from pipeline.sources import detect, resolve_source

Run = Callable[[list[ShardSpec]], Iterator[dict[str, Any]]]


def repair_split(
    uri: str,
    plan: Plan,
    description: dict[str, Any],
    specs: list[ShardSpec],
    shards: set[int],
    run: Run,
    place: str | None,
    list_again: bool = False,
) -> list[str]:
    """Build `shards` of one split again and enter the split anew; returns the names of the shards that were built.

    Images come from `place`, or from where they were. Raises UsageError when they cannot be found or this machine
    makes other bytes, and DataError when the new bytes are not those of before: then `dataset.json` stays as it was.
    """
    if list_again and not shards:
        plan, description, specs = _with_source(uri, plan, description, specs, place, list_again)
    if shards:
        _check_machine(description)
        before = plan, description
        plan, description, specs = _with_source(uri, plan, description, specs, place, list_again)
        todo = [spec for spec in specs if spec.shard in shards]
        _forget(todo)
        try:
            for _ in run(todo):
                pass
            _check_root(uri, plan.split, specs)
        except DataError:
            _forget(todo)
            save_plan(plan_uri(uri, plan.split), *before)
            raise
    finish_split(uri, plan, description, specs)
    return [spec.name for spec in specs if spec.shard in shards]


def clear_dataset_file(uri: str, problems: set[str]) -> None:
    """Remove a `dataset.json` that is damaged, so that finishing the splits writes it anew."""
    try:
        open_dataset(uri)
        damaged = DATASET_FILE in problems
    except UsageError:
        damaged = DATASET_FILE in problems  # absent, or its version field is damaged
    except DataError:
        damaged = True
    if damaged:
        storage.remove(storage.join(uri, DATASET_FILE))


def _forget(specs: list[ShardSpec]) -> None:
    """Without its sidecar a shard counts as not built."""
    for spec in specs:
        storage.remove(sidecar_uri(spec.out, spec.split, spec.shard))


def _check_machine(description: dict[str, Any]) -> None:
    before, here = description["versions"], byte_versions()
    if before["golden"] != here["golden"]:
        differing = [
            f"{name} {before.get(name)} (here {here[name]})" for name in here if before.get(name) != here[name]
        ]
        raise UsageError(
            f"the shards were made with {', '.join(differing)}, so this machine would build other bytes. "
            f"Repair with those versions (constraints.txt), or preprocess again into another folder."
        )


def _with_source(
    uri: str, plan: Plan, description: dict[str, Any], specs: list[ShardSpec], place: str | None, list_again: bool
) -> tuple[Plan, dict[str, Any], list[ShardSpec]]:
    """Tasks that read the images where they are now; a source that moved or is listed again enters the stored plan."""
    wanted = resolve_source(place) if place else description["origin"]["uri"]
    if HIDDEN in wanted:
        raise UsageError(
            f"the data set keeps no secrets, so its source {wanted} cannot be opened: name it with --source."
        )
    try:
        source = detect(wanted, plan.split)
    except UsageError as error:
        raise UsageError(
            f"{error} Shards are built again from their images: --source names where these are now."
        ) from None
    if place or list_again:
        plan = relocate(plan, source)
        description = {**description, "origin": {"kind": source.kind, "uri": masked(wanted)}}
        save_plan(plan_uri(uri, plan.split), plan, description)
    return plan, description, [replace(spec, source=source.reader()) for spec in specs]


def _check_root(uri: str, split: str, specs: list[ShardSpec]) -> None:
    try:
        before = open_dataset(uri).splits[split].root_hash
    except (UsageError, DataError, KeyError, TypeError):
        return  # the split was never finished, or its entry is itself damaged: nothing to compare with
    sidecars = [read_sidecar(spec) for spec in specs]
    after = root_hash([sidecar["sha256"] for sidecar in sidecars if sidecar])
    if after != before:
        raise DataError(
            f"the shards of split '{split}' that were built again make the root hash {after[:12]}, but the data set "
            f"was {before[:12]}: the images are not those of before, or changed. Name the right ones with --source; "
            f"`focusvit preprocess --checksums` guards against such changes."
        )
