"""`focusvit verify`: every byte of a data set against its plan; with --repair the damaged shards are built again."""

import sys
from dataclasses import asdict
from functools import partial
from typing import TextIO

from tqdm import tqdm

from pipeline.commandline import parse
from pipeline.errors import DataError
from pipeline.io import storage
from pipeline.io.json_text import json_text
from pipeline.options import VerifyConfig
from pipeline.shards.commit import derived_files, split_info
from pipeline.shards.dataset import (
    DATASET_FILE,
    STATE_FOLDER,
    errors_uri,
    index_uri,
    plan_uri,
    read_index,
    shard_name,
    sidecar_uri,
)
from pipeline.shards.entry import dataset_files
from pipeline.shards.executors import run_shards
from pipeline.shards.fingerprint import byte_versions
from pipeline.shards.interop import TIMM_FILE, dali_name, wids_name
from pipeline.shards.overlap import shared_images
from pipeline.shards.sidecar import read_sidecar

from .check import check_shard, read_whole, recheck_shard
from .repair import rebuild_plans, repair
from .stored import Found, Problem, StoredSplit, open_splits, stated_splits


def find_problems(config: VerifyConfig, uri: str) -> Found:
    """All that is off. Raises UsageError when there is no data set."""
    problems: list[Problem] = []
    splits, lost = open_splits(uri, problems)
    num_samples = 0
    work = recheck_shard if config.recompute else check_shard
    for name, split in splits.items():
        with tqdm(total=len(split.specs), unit=" shards", desc=f"verify {name}", disable=None) as bar:
            for result in run_shards(config, split.specs, work):
                bar.update()
                num_samples += result["num_samples"]
                shard = result["shard"]
                file = shard_name(name, shard)
                problems += [Problem(file=file, text=text, shard=shard, split=name) for text in result["problems"]]
                if result["dali"]:
                    problems.append(Problem(file=dali_name(name, shard), text=result["dali"], split=name))
    broken = {problem.split or "" for problem in problems if problem.shard is not None}
    problems += _check_derived(uri, splits, lost, broken)
    problems += _foreign(uri, splits, lost)
    problems.sort(key=lambda problem: (problem.file, problem.text))
    return Found(problems=problems, splits=splits, lost=lost, num_samples=num_samples)


def _check_derived(uri: str, splits: dict[str, StoredSplit], lost: set[str], broken: set[str]) -> list[Problem]:
    """Files that follow from plan and sidecars, against what is there. Splits with broken shards wait for these."""
    problems, infos = [], {}
    for name, split in splits.items():
        sidecars = [sidecar for sidecar in map(read_sidecar, split.specs) if sidecar]
        if name in broken or len(sidecars) < len(split.specs):
            continue
        problems += _compare(uri, derived_files(uri, name, sidecars), name)
        infos[name] = split_info(uri, split.plan, split.description, sidecars)
    if not infos or problems:
        return problems
    waiting = (splits.keys() | lost) - infos.keys()
    kept = {name: info for name, info in stated_splits(uri).items() if name in waiting}
    for name, info in kept.items():
        try:
            read_index(uri, name, info)
        except DataError as error:
            return [Problem(file=index_uri("", name).lstrip("/"), text=str(error), split=name)]
    classes = next((split.plan.classes for split in splits.values() if split.plan.classes), ())
    last = next(iter(splits.values()))
    return _compare(uri, dataset_files(uri, classes, last.description, infos | kept), None)


def _compare(uri: str, files: dict[str, bytes], split: str | None) -> list[Problem]:
    problems = []
    for place, data in files.items():
        name = place.removeprefix(uri).lstrip("/")
        try:
            if read_whole(place) != data:
                problems.append(Problem(file=name, text="is not what the shards and the plan say", split=split))
        except DataError as error:
            problems.append(Problem(file=name, text=str(error), split=split))
    return problems


def _foreign(uri: str, splits: dict[str, StoredSplit], lost: set[str]) -> list[Problem]:
    """Files that no command of this project put there. What may be of a split whose plan is lost stays."""
    known = {DATASET_FILE, TIMM_FILE}
    for split in splits.keys() | lost:
        places = (plan_uri("", split), index_uri("", split), errors_uri("", split))
        known |= {wids_name(split), *(place.lstrip("/") for place in places)}
    for spec in (spec for split in splits.values() for spec in split.specs):
        sidecar = sidecar_uri("", spec.split, spec.shard).lstrip("/")
        known |= {spec.name, sidecar, dali_name(spec.split, spec.shard)}
    found = [name for name in storage.list_names(uri) if name != STATE_FOLDER]
    found += [f"{STATE_FOLDER}/{name}" for name in storage.find_files(storage.join(uri, STATE_FOLDER))]
    return [
        Problem(file=name, text="does not belong to the data set; move it away")
        for name in found
        if name not in known and storage.name_of(name).rpartition("-")[0] not in lost
    ]


def main(argv: list[str]) -> int:
    config = parse(VerifyConfig, argv, prog="focusvit verify")
    uri = storage.resolve(config.uri)
    stream = sys.stderr if config.json else sys.stdout
    found = find_problems(config, uri)
    repaired: list[str] = []
    if config.repair and found.problems:
        _show(found, stream)
        back, errors = rebuild_plans(uri, found.lost, config.source)
        if back:
            found = find_problems(config, uri)
        repaired, more = repair(uri, found, partial(run_shards, config), config.source)
        for error in [*errors, *more]:
            raise error  # all that could be repaired is
        found = find_problems(config, uri)
    _show(found, stream)
    warnings = shared_images(uri, list(found.splits))
    for sentence in warnings:
        stream.write(f"warning: {sentence}\n")
    problems, num_shards = found.problems, sum(len(split.specs) for split in found.splits.values())
    if config.json:
        content = {
            "uri": uri,
            "ok": not problems,
            "num_shards": num_shards,
            "num_samples": found.num_samples,
            "problems": [asdict(problem) for problem in problems],
            "warnings": warnings,
            "repaired": repaired,
            "versions": byte_versions(),
        }
        sys.stdout.write(json_text(content) + "\n")
    else:
        state = f"{len(problems)} problems" if problems else "all is well"
        again = f", {len(repaired)} shards built again" if config.repair else ""
        sys.stdout.write(f"verify {uri}: {num_shards} shards, {found.num_samples} samples decoded{again}: {state}\n")
    return 1 if problems else 0


def _show(found: Found, stream: TextIO) -> None:
    for problem in found.problems:
        stream.write(f"{problem.file}: {problem.text}\n")
