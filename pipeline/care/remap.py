"""`focusvit remap`: a data set with superpixels of other settings, made from its shards; no original is read.

Maps are made of the stored pixels, so the result is to the byte what a fresh preprocessing with these settings gives.
"""

import hashlib
import sys
import time
from dataclasses import asdict, replace
from typing import Any

from tqdm import tqdm

from pipeline.commandline import parse
from pipeline.errors import DataError, UsageError
from pipeline.image.image import BadImage, ImageConfig, decode_image
from pipeline.io import storage
from pipeline.io.json_text import json_text
from pipeline.options import RemapConfig
from pipeline.plan.plan import read_shard_rows, save_plan
from pipeline.shards.build import Members, ShardSpec, build_shard, prove_machine
from pipeline.shards.commit import check_out, finish_split
from pipeline.shards.dataset import open_dataset, plan_uri, shard_name
from pipeline.shards.description import describe, shard_specs
from pipeline.shards.executors import run_shards
from pipeline.shards.sample import decode, encode
from pipeline.shards.sidecar import load_sidecar, read_sidecar
from pipeline.shards.worker import commit_shard
from pipeline.sources.readers import FileReader
from pipeline.superpixels.segment import SuperpixelConfig, segment_image

from .check import read_samples
from .stored import load_sound_plan


def remap_shard(spec: ShardSpec) -> dict[str, Any]:
    """The shard of `spec` from that of `spec.source`. As `run_shard`, also in what it raises."""
    prove_machine(spec.golden)
    started = time.perf_counter(), time.process_time()
    name = shard_name(spec.split, spec.shard)
    data = storage.read_bytes(storage.join(spec.source.root, name))
    sidecar = load_sidecar(spec.source.root, spec.split, spec.shard)
    if sidecar is None or hashlib.sha256(data).hexdigest() != sidecar["sha256"]:
        raise DataError(
            f"the shard {name} in {spec.source.root}, or its sidecar, is damaged. Run `focusvit verify --repair` on it "
            f"first."
        )
    stored = {key: members for key, _, members in read_samples(data, name)}
    reasons = {sample["key"]: sample["reason"] for sample in sidecar["skipped"]}

    def make(row: dict[str, Any]) -> Members:
        if row["key"] in reasons:
            raise BadImage(reasons[row["key"]])
        return remap_sample(row["key"], stored[row["key"]], spec.superpixels)

    rows = read_shard_rows(plan_uri(spec.out, spec.split), spec.shard)
    return commit_shard(spec, build_shard(rows, make), started)


def remap_sample(key: str, members: Members, config: SuperpixelConfig) -> Members:
    """Members with other superpixels; image, class, label map and the rest of the json stay."""
    sample = decode(key, members)
    found = segment_image(decode_image(sample.image), config)
    meta = {**sample.meta, "superpixels": {"regions": len(found.merges) + 1, **asdict(config)}}
    return encode(replace(sample, superpixels=found, meta=meta))


def remap(config: RemapConfig) -> dict[str, str]:
    """Make or complete the data set at `config.out`; root hashes by split. Raises UsageError, DataError."""
    uri, out = storage.resolve(config.uri), storage.resolve(config.out)
    dataset = open_dataset(uri)
    names = [dataset.split(config.split).name] if config.split else sorted(dataset.splits)
    roots = {}
    for name in names:
        try:
            plan, before = load_sound_plan(uri, name)
        except DataError as error:
            raise DataError(f"the plan of split '{name}' in {uri} {error}") from None
        description = describe(plan, ImageConfig(**before["image"]), config.superpixels, before["origin"])
        if before["superpixels"] == description["superpixels"]:
            raise UsageError(f"{uri} has superpixels of these settings already: {description['superpixels']}.")
        if not check_out(out, plan, description):
            save_plan(plan_uri(out, name), plan, description)
        specs = shard_specs(out, plan, description, FileReader(uri))
        todo = [spec for spec in specs if not read_sidecar(spec)]
        with tqdm(total=len(specs), initial=len(specs) - len(todo), unit=" shards", desc=f"remap {name}") as bar:
            for _ in run_shards(config, todo, remap_shard):
                bar.update()
        roots[name] = finish_split(out, plan, description, specs).root_hash
    return roots


def main(argv: list[str]) -> int:
    config = parse(RemapConfig, argv, prog="focusvit remap")
    stream = sys.stderr if config.json else sys.stdout
    stream.write(f"remap {config.uri} -> {config.out}: {asdict(config.superpixels)}\n")
    roots = remap(config)
    out, told = storage.resolve(config.out), "; ".join(f"{name}: root {root}" for name, root in roots.items())
    line = f"remap finished at {out}: {told}"
    sys.stdout.write((json_text({"out": out, "root_hashes": roots}) if config.json else line) + "\n")
    return 0
