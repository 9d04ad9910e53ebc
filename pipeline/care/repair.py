"""Damaged shards, built again to the same bytes, and the files that follow from shards, written again.

Nothing that is there gives way to something worse: shards are built in a folder of their own and take the place of the
damaged ones only when they have the bytes of before; a split that cannot be repaired keeps its files and its entry.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from pipeline.errors import DataError, UsageError
from pipeline.image.image import ImageConfig
from pipeline.io import storage
from pipeline.plan.plan import make_plan, relocate, save_plan
from pipeline.secrets import HIDDEN, masked
from pipeline.shards.build import ShardSpec
from pipeline.shards.commit import root_hash, write_derived
from pipeline.shards.dataset import DATASET_FILE, STATE_FOLDER, SplitInfo, open_dataset, plan_uri, sidecar_uri
from pipeline.shards.description import describe
from pipeline.shards.entry import enter_split
from pipeline.shards.fingerprint import byte_versions
from pipeline.shards.interop import dali_index, dali_name
from pipeline.shards.sidecar import load_sidecar, read_sidecar
from pipeline.sources import Source, detect, resolve_source
from pipeline.sources.source import NO_CHOICES, Choices

from .stored import Found, StoredSplit, stated_splits

Run = Callable[[list[ShardSpec]], Iterator[dict[str, Any]]]
Refusal = UsageError | DataError


def rebuild_plans(uri: str, lost: Iterable[str], place: str | None) -> tuple[list[str], list[Refusal]]:
    """Write lost plans anew; returns the splits whose plan is back, and why others are not: these stay as they are."""
    back: list[str] = []
    errors: list[Refusal] = []
    for split in sorted(lost):
        try:
            _rebuild_plan(uri, split, place)
            back.append(split)
        except (UsageError, DataError) as error:
            kept = f"The plan of split '{split}' cannot be written anew, so all its files stay as they are: {error}"
            errors.append(type(error)(kept) if type(error) in (UsageError, DataError) else DataError(kept))
    return back, errors


def _rebuild_plan(uri: str, split: str, place: str | None) -> None:
    """List the source again, and store the plan if it has the fingerprint that `dataset.json` states."""
    dataset = open_dataset(uri)
    if split not in dataset.splits:
        raise DataError(f"{DATASET_FILE} does not say what it was made of.")
    info = dataset.splits[split]
    source, wanted = _open_source(place, info.source.partition(" at ")[2], split, NO_CHOICES)
    count = info.num_samples + info.num_skipped
    plan = make_plan(
        source,
        split,
        samples_per_shard=-(-count // info.num_shards),
        max_samples=count,
        known_classes=dataset.classes,
    )
    origin = {"kind": source.kind, "uri": masked(wanted), "root": masked(source.root)}
    description = describe(plan, ImageConfig(**dataset.image), dataset.superpixels, origin)
    if description["fingerprint"] != info.fingerprint:
        raise DataError(
            f"the source {masked(wanted)} gives another plan (fingerprint {description['fingerprint'][:12]}, before "
            f"{info.fingerprint[:12]}): its images are not those of before, or the shards were made with --checksums "
            f"or other versions (here {byte_versions()}). Run the same `focusvit preprocess` as before."
        )
    save_plan(plan_uri(uri, split), plan, description)


def repair(uri: str, found: Found, run: Run, place: str | None) -> tuple[list[str], list[Refusal]]:
    """Build broken shards again, write what follows from shards, and enter the splits anew.

    Images come from `place`, or from where they were. Returns the names of the shards that were built, and why splits
    could not be repaired: no images (UsageError), other versions here (UsageError), other bytes (DataError).
    """
    storage.remove_folder(_staging(uri))
    files = {problem.file for problem in found.problems}
    repaired: list[str] = []
    errors: list[Refusal] = []
    infos: dict[str, tuple[StoredSplit, SplitInfo]] = {}
    for name, split in found.splits.items():
        problems = [problem for problem in found.problems if problem.split == name]
        shards = {problem.shard for problem in problems if problem.shard is not None}
        moved = any(problem.file.endswith(".parquet") for problem in problems)
        try:
            split = _build_again(uri, split, shards, run, place, moved)
            repaired += [spec.name for spec in split.specs if spec.shard in shards]
            for spec in split.specs:
                if dali_name(name, spec.shard) in files:
                    data = storage.read_bytes(storage.join(uri, spec.name))
                    storage.put(storage.join(uri, dali_name(name, spec.shard)), dali_index(data))
            infos[name] = split, write_derived(uri, split.plan, split.description, split.specs)
        except (UsageError, DataError) as error:
            errors.append(error)
        finally:
            storage.remove_folder(_staging(uri))
    unfinished = (found.splits.keys() | found.lost) - infos.keys()
    try:
        _enter(uri, infos, unfinished, DATASET_FILE in files)
    except (UsageError, DataError) as error:
        errors.append(error)
    return repaired, errors


def _enter(uri: str, infos: dict[str, tuple[StoredSplit, SplitInfo]], unfinished: set[str], damaged: bool) -> None:
    """Write `dataset.json`. What it says of splits that are not repaired stays."""
    place = storage.join(uri, DATASET_FILE)
    if storage.exists(place):
        try:
            stated = open_dataset(uri).splits.keys()
            damaged |= not stated <= infos.keys() | unfinished
        except (UsageError, DataError) as error:
            if unfinished:
                raise DataError(
                    f"{error} It stays as it is, since {', '.join(sorted(unfinished))} would be lost from it: repair "
                    f"that split first."
                ) from None
            damaged = True
        if damaged and not unfinished:
            storage.remove(place)
    for split, info in sorted(infos.values(), key=lambda pair: not pair[0].plan.classes):  # those with classes first
        enter_split(uri, split.plan, split.description, info)


def _staging(uri: str) -> str:
    return storage.join(uri, STATE_FOLDER, "repair")


def _build_again(
    uri: str, split: StoredSplit, shards: set[int], run: Run, place: str | None, moved: bool
) -> StoredSplit:
    """Build `shards` beside the data set and put them in place; a source that `moved` enters the stored plan."""
    if not shards and not moved:
        return split
    plan, description, name = split.plan, split.description, split.plan.split
    if shards:
        _check_machine(description)
    before = description["origin"]
    source, wanted = _open_source(place, before["uri"], before.get("split", name), Choices.of(before))
    moved |= place is not None
    if moved:
        plan = relocate(plan, source)
        places = {"kind": source.kind, "uri": masked(wanted), "root": masked(source.root)}
        description = {**description, "origin": {**before, **places}}
    if shards:
        staging = _staging(uri)
        save_plan(plan_uri(staging, name), plan, description)
        built = [replace(s, out=staging, source=source.reader()) for s in split.specs if s.shard in shards]
        for _ in run(built):
            pass
        _check_bytes(uri, split, built)
        for spec in built:
            files = [spec.name, dali_name(name, spec.shard), sidecar_uri("", name, spec.shard).lstrip("/")]
            for file in files:  # the sidecar last: it is the mark of completion
                storage.put(storage.join(uri, file), storage.read_bytes(storage.join(staging, file)))
    if moved:
        save_plan(plan_uri(uri, name), plan, description)
    return StoredSplit(plan=plan, description=description, specs=split.specs)


def _open_source(place: str | None, before: str, split: str, choices: Choices) -> tuple[Source, str]:
    wanted = resolve_source(place) if place else before
    if HIDDEN in wanted:
        raise UsageError(
            f"the data set keeps no secrets, so its source {wanted} cannot be opened: name it with --source."
        )
    try:
        return detect(wanted, split, choices), wanted
    except UsageError as error:
        raise UsageError(
            f"{error} Shards are built again from their images: --source names where these are now."
        ) from None


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


def _check_bytes(uri: str, split: StoredSplit, built: list[ShardSpec]) -> None:
    """Raise DataError unless the shards are those of before: by their old sidecars, or by the root hash of the split.

    A shard of a split that was never finished may have neither.
    """
    name = split.plan.split
    sidecars = {spec.shard: read_sidecar(spec) for spec in built}
    new = {shard: sidecar["sha256"] if sidecar else "" for shard, sidecar in sidecars.items()}
    old = {shard: load_sidecar(uri, name, shard) for shard in new}
    if all(sidecar and sidecar["sha256"] == new[shard] for shard, sidecar in old.items()):
        return
    stated = stated_splits(uri).get(name)
    if stated is None:
        other = [shard for shard, sidecar in old.items() if sidecar and sidecar["sha256"] != new[shard]]
        if not other and all(new.values()):
            return
        before, after = "that of its sidecar", f"shard {min(other, default=0)}"
    else:
        rest = {spec.shard: read_sidecar(spec) for spec in split.specs if spec.shard not in new}
        hashes = {**new, **{shard: sidecar["sha256"] if sidecar else "" for shard, sidecar in rest.items()}}
        root = root_hash([hashes[shard] for shard in sorted(hashes)])
        if root == stated.root_hash:
            return
        before, after = f"the root hash {stated.root_hash[:12]}", f"the root hash {root[:12]}"
    raise DataError(
        f"the shards of split '{name}' that were built again make {after}, not {before}: the images are not those of "
        f"before, or changed. What was there is untouched. Name the right ones with --source; "
        f"`focusvit preprocess --checksums` guards against such changes."
    )
