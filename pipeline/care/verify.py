"""`focusvit verify`: every byte of a data set against its plan; with --repair the damaged shards are built again."""

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from tqdm import tqdm

from pipeline.commandline import Positional, parse
from pipeline.errors import DataError, UsageError
from pipeline.image.image import ImageConfig
from pipeline.io import storage
from pipeline.plan.plan import Plan, load_plan
from pipeline.shards.build import ShardSpec
from pipeline.shards.commit import derived_files, is_whole, split_info
from pipeline.shards.dataset import (
    DATASET_FILE,
    STATE_FOLDER,
    errors_uri,
    index_uri,
    open_dataset,
    plan_uri,
    shard_name,
    sidecar_uri,
)
from pipeline.shards.entry import dataset_files
from pipeline.shards.executors import run_local, run_ray
from pipeline.shards.fingerprint import byte_versions
from pipeline.shards.interop import TIMM_FILE, dali_name, wids_name
from pipeline.shards.sidecar import read_sidecar
from pipeline.shards.worker import run_shard
from pipeline.superpixels.segment import SuperpixelConfig

from .check import check_shard, recheck_shard
from .repair import clear_dataset_file, repair_split


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """Re-hash, count and decode everything in a data set; exit with 1 and a list when anything is off."""

    uri: Positional[str]
    """The folder (or URI) that `focusvit preprocess` wrote."""
    repair: bool = False
    """Build the damaged shards again, to the same bytes, from the images they were made of."""
    source: str | None = None
    """Where the images are now, when they moved since; needs --repair."""
    recompute: bool = False
    """Also make every superpixel map again from the stored image and compare."""
    workers: int | None = None
    """Shards checked at a time; by default one for each CPU. 0 runs in this process."""
    ray_address: str | None = None
    """A running Ray cluster to use; by default processes of this machine."""
    json: bool = False
    """Print one JSON object on stdout."""

    def __post_init__(self) -> None:
        if self.source and not self.repair:
            raise ValueError("--source names where damaged shards are built from; add --repair")
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"--workers is {self.workers}; it must be at least 0")
        if self.workers == 0 and self.ray_address:
            raise ValueError("--workers 0 (in this process) and --ray-address exclude each other")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is off."""

    file: str  # relative to the data set
    text: str
    shard: int | None = None  # the shard to build again, in `split`
    split: str | None = None


@dataclass(frozen=True, kw_only=True)
class StoredSplit:
    """A split as its plan states it, with the specs that its shards are made from."""

    plan: Plan
    description: dict[str, Any]
    specs: list[ShardSpec]


def open_splits(uri: str, problems: list[Problem]) -> dict[str, StoredSplit]:
    """Every split with a stored plan. A damaged plan becomes a problem. Raises UsageError when there is none."""
    found = {}
    names = [name for name in storage.list_names(storage.join(uri, STATE_FOLDER)) if name.startswith("plan-")]
    if not names:
        raise UsageError(f"{uri} holds no data set: there is no plan in {STATE_FOLDER}/. Name the folder to verify.")
    for name in names:
        split = name.removeprefix("plan-").removesuffix(".parquet")
        try:
            plan, description = load_plan(plan_uri(uri, split))
            if not is_whole(description):
                raise DataError("the description in it does not have the digests that it states.")
        except DataError as error:
            text = f"{error} The same `focusvit preprocess` as before writes it anew, and keeps the shards."
            problems.append(Problem(file=f"{STATE_FOLDER}/{name}", text=text))
            continue
        if _other_plan_file(uri, split):
            text = "is not the file that dataset.json names: places of images in it may be wrong"
            problems.append(Problem(file=f"{STATE_FOLDER}/{name}", text=text, split=split))
        found[split] = StoredSplit(plan=plan, description=description, specs=_specs(uri, plan, description))
    return found


def _other_plan_file(uri: str, split: str) -> bool:
    try:
        stated = open_dataset(uri).splits[split].plan_sha256
    except (UsageError, DataError, KeyError):
        return False  # not finished, or damaged itself: that is found elsewhere
    return hashlib.sha256(storage.read_bytes(plan_uri(uri, split))).hexdigest() != stated


def _specs(uri: str, plan: Plan, description: dict[str, Any]) -> list[ShardSpec]:
    first = ShardSpec(
        out=uri,
        split=plan.split,
        shard=0,
        source=_Nowhere(),
        image=ImageConfig(**description["image"]),
        superpixels=SuperpixelConfig(**description["superpixels"]),
        fingerprint=description["fingerprint"],
        golden=description["versions"]["golden"],
        skip_bad=True,
    )
    return [replace(first, shard=shard) for shard in range(plan.num_shards)]


@dataclass(frozen=True)
class _Nowhere:
    """Checking a shard reads no image of the source."""

    root: str = ""

    def read(self, file: str, offset: int, length: int) -> bytes:
        raise FileNotFoundError(file)


def find_problems(config: VerifyConfig, uri: str) -> tuple[list[Problem], dict[str, StoredSplit], int]:
    """(all that is off, the splits, how many samples were decoded)."""
    problems: list[Problem] = []
    splits = open_splits(uri, problems)
    specs = [spec for split in splits.values() for spec in split.specs]
    num_samples = 0
    work = recheck_shard if config.recompute else check_shard
    for split in splits.values():
        results = _run(config, split.specs, work)
        with tqdm(total=len(split.specs), unit=" shards", desc=f"verify {split.plan.split}", disable=None) as bar:
            for result in results:
                bar.update()
                num_samples += result["num_samples"]
                name = shard_name(split.plan.split, result["shard"])
                problems += [
                    Problem(file=name, text=text, shard=result["shard"], split=split.plan.split)
                    for text in result["problems"]
                ]
    broken: set[str | None] = {problem.split for problem in problems if problem.shard is not None}
    problems += _check_derived(uri, splits, broken)
    problems += _foreign(uri, specs, list(splits))
    return sorted(problems, key=lambda problem: (problem.file, problem.text)), splits, num_samples


def _run(config: VerifyConfig, specs: list[ShardSpec], work: Any) -> Iterator[dict[str, Any]]:
    if config.ray_address:
        return run_ray(specs, address=config.ray_address, workers=config.workers, work=work)
    return run_local(specs, workers=config.workers, work=work)


def _check_derived(uri: str, splits: dict[str, StoredSplit], broken: set[str | None]) -> list[Problem]:
    """Files that follow from plan and sidecars, against what is there. Splits with broken shards wait for these."""
    problems, infos = [], {}
    for name, split in splits.items():
        sidecars = [sidecar for sidecar in map(read_sidecar, split.specs) if sidecar]
        if name in broken or len(sidecars) < len(split.specs):
            continue
        problems += _compare(uri, derived_files(uri, name, sidecars), name)
        infos[name] = split_info(uri, split.plan, split.description, sidecars)
    if broken or not infos or problems:
        return problems
    classes = next((split.plan.classes for split in splits.values() if split.plan.classes), ())
    last = next(iter(splits.values()))
    return problems + _compare(uri, dataset_files(uri, classes, last.description, infos), None)


def _compare(uri: str, files: dict[str, bytes], split: str | None) -> list[Problem]:
    problems = []
    for place, data in files.items():
        name = place.removeprefix(uri).lstrip("/")
        try:
            if storage.read_bytes(place) != data:
                problems.append(Problem(file=name, text="is not what the shards and the plan say", split=split))
        except FileNotFoundError:
            problems.append(Problem(file=name, text="is missing", split=split))
    return problems


def _foreign(uri: str, specs: list[ShardSpec], splits: list[str]) -> list[Problem]:
    """Files that no command of this project put there."""
    known = {DATASET_FILE, TIMM_FILE}
    for split in splits:
        places = (plan_uri(uri, split), index_uri(uri, split), errors_uri(uri, split))
        known |= {wids_name(split), *(place.removeprefix(uri).lstrip("/") for place in places)}
    for spec in specs:
        sidecar = sidecar_uri(uri, spec.split, spec.shard).removeprefix(uri).lstrip("/")
        known |= {spec.name, sidecar, dali_name(spec.split, spec.shard)}
    found = [name for name in storage.list_names(uri) if name != STATE_FOLDER]
    found += [f"{STATE_FOLDER}/{name}" for name in storage.find_files(storage.join(uri, STATE_FOLDER))]
    return [
        Problem(file=name, text="does not belong to the data set; move it away") for name in found if name not in known
    ]


def main(argv: list[str]) -> int:
    config = parse(VerifyConfig, argv, prog="focusvit verify")
    uri = storage.resolve(config.uri)
    stream = sys.stderr if config.json else sys.stdout
    problems, splits, num_samples = find_problems(config, uri)
    repaired: list[str] = []
    if config.repair and problems:
        for problem in problems:
            stream.write(f"{problem.file}: {problem.text}\n")
        clear_dataset_file(uri, {problem.file for problem in problems})
        for name, split in splits.items():
            repaired += repair_split(
                uri,
                split.plan,
                split.description,
                split.specs,
                {problem.shard for problem in problems if problem.split == name and problem.shard is not None},
                lambda specs: _run(config, specs, run_shard),
                config.source,
                list_again=any(p.file.endswith(f"plan-{name}.parquet") for p in problems),
            )
        problems, splits, num_samples = find_problems(config, uri)
    for problem in problems:
        stream.write(f"{problem.file}: {problem.text}\n")
    num_shards = sum(len(split.specs) for split in splits.values())
    if config.json:
        content = {
            "uri": uri,
            "ok": not problems,
            "num_shards": num_shards,
            "num_samples": num_samples,
            "problems": [asdict(problem) for problem in problems],
            "repaired": repaired,
            "versions": byte_versions(),
        }
        sys.stdout.write(json.dumps(content) + "\n")
    else:
        state = f"{len(problems)} problems" if problems else "all is well"
        again = f", {len(repaired)} shards built again" if config.repair else ""
        sys.stdout.write(f"verify {uri}: {num_shards} shards, {num_samples} samples decoded{again}: {state}\n")
    return 1 if problems else 0
