"""`focusvit preprocess`: from a source to one finished split of a data set. Run again, it goes on where it stopped."""

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from tqdm import tqdm

from pipeline.io.scan import in_parallel
from pipeline.plan.lines import source_lines
from pipeline.plan.plan import Plan, make_plan, save_plan
from pipeline.plan.selection import read_checksums
from pipeline.secrets import masked
from pipeline.shards.build import ShardSpec
from pipeline.shards.commit import (
    check_out,
    clear_leftovers,
    error_table,
    finish_split,
    known_classes,
    other_splits,
)
from pipeline.shards.dataset import STATE_FOLDER, errors_uri, plan_uri
from pipeline.shards.description import describe, shard_specs
from pipeline.shards.overlap import content_ids, refuse_same_bytes, shared_images
from pipeline.shards.probe import probe, replaced, rotated
from pipeline.shards.sidecar import read_sidecar

from .commandline import parse
from .dry_run import estimate
from .errors import DataError
from .io import storage
from .io.json_text import json_text
from .io.machine import usable_cpus
from .options import PreprocessConfig
from .sources import resolve_source
from .sources.detect import look, look_for_share

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a run did. Counts are of the whole split; `built_shards` of this run."""

    out: str
    split: str
    num_samples: int
    num_skipped: int
    num_shards: int
    built_shards: int
    num_bytes: int
    num_classes: int
    seconds: float
    images_per_s: float
    identity: str
    root_hash: str

    def line(self) -> str:
        return (
            f"{self.split}: {self.num_samples} samples of {self.num_classes} classes in {self.num_shards} shards "
            f"({self.num_bytes / 1e6:.1f} MB, {self.built_shards} built now, {self.num_skipped} samples skipped), "
            f"{self.seconds:.1f} s, {self.images_per_s:.0f} images/s, at {self.out}"
        )


def preprocess(config: PreprocessConfig, say: Say = lambda _: None) -> Summary | dict[str, Any]:
    """Make or complete one split; a dry run returns its estimate instead. `say` gets the plan, line by line.

    Raises UsageError (the request does not fit the source or what is already there) and DataError (bad samples, with
    their list). Whatever stops it, a later run with the same config keeps the finished shards.
    """
    out = storage.resolve(config.out)
    found_by = look if config.val_share is None else look_for_share
    reading = found_by(config.source, config.split, out, config.choices)
    source = reading.source
    plan = make_plan(
        source,
        config.split,
        samples_per_shard=config.samples_per_shard,
        max_samples=config.max_samples,
        checksums=read_checksums(storage.resolve(config.checksums)) if config.checksums else None,
        val_share=config.val_share,
        known_classes=known_classes(out, config.split),
        unlabelled=config.choices.unlabelled,
    )
    origin = {
        "kind": source.kind,
        "uri": masked(resolve_source(config.source)),
        "root": masked(source.root),
        **({"split": reading.chosen} if reading.chosen else {}),
        **config.choices.made(),
    }
    description = describe(plan, config.image, config.superpixels, origin)
    plan_is_stored = check_out(out, plan, description)
    others = other_splits(out, plan.split)
    first = probe(plan, source.reader())
    refuse_same_bytes(out, plan, others, first)
    lines = source_lines(reading, plan, whole=config.max_samples is None and config.val_share is None) + rotated(first)
    if config.dry_run:
        _say_plan(say, config, lines, plan, out, finished=0)
        workers = _num_workers(config)
        return {"source": lines, **estimate(plan, source.reader(), config.image, config.superpixels, workers=workers)}
    specs = shard_specs(out, plan, description, source.reader(), skip_bad=config.on_error == "skip")
    finished = _finished(specs, out)
    _say_plan(say, config, lines, plan, out, len(finished))
    if len(finished) == len(specs):
        skipped = {sample["source"] for samples in finished.values() for sample in samples}
        for line in replaced(first, content_ids(out, plan.split), skipped):
            say(line)
    if not plan_is_stored:
        save_plan(plan_uri(out, plan.split), plan, description)
    clear_leftovers(out, plan.split)
    started = time.perf_counter()
    todo = [spec for spec in specs if spec.shard not in finished]
    bad = [sample for skipped in finished.values() for sample in skipped]
    num_new = _build(config, plan, todo, bad)
    _settle_errors(config, out, plan.split, bad)
    info = finish_split(out, plan, description, specs)
    for sentence in shared_images(out, [plan.split, *others]):
        say(f"warning  {sentence}")
    seconds = time.perf_counter() - started
    return Summary(
        out=out,
        split=plan.split,
        num_samples=info.num_samples,
        num_skipped=info.num_skipped,
        num_shards=info.num_shards,
        built_shards=len(todo),
        num_bytes=info.num_bytes,
        num_classes=len(plan.classes),
        seconds=round(seconds, 3),
        images_per_s=round(num_new / seconds, 1) if seconds else 0.0,
        identity=info.identity,
        root_hash=info.root_hash,
    )


def _num_workers(config: PreprocessConfig) -> int:
    return config.workers if config.workers is not None else usable_cpus()


def _finished(specs: list[ShardSpec], out: str) -> dict[int, list[dict[str, Any]]]:
    """The skipped samples of each shard that needs no work."""
    present = set(storage.list_names(storage.join(out, STATE_FOLDER, "shards")))
    known = [spec for spec in specs if spec.name.replace(".tar", ".json") in present]
    pairs = zip(known, in_parallel(read_sidecar, known))
    return {spec.shard: sidecar["skipped"] for spec, sidecar in pairs if sidecar}


def _say_plan(say: Say, config: PreprocessConfig, lines: list[str], plan: Plan, out: str, finished: int) -> None:
    num_shards = plan.num_shards
    output = f"output   split '{plan.split}' in {out}: {num_shards} shards of about {plan.num_samples // num_shards}"
    for line in (*lines, output):
        say(line)
    say(
        f"images   short side at most {config.image.target_px} px (JPEG quality {config.image.quality} when reduced); "
        f"at most {config.superpixels.fine_regions} superpixels"
    )
    where = "processes of this machine" if config.local else f"Ray at {config.ray_address or 'this machine'}"
    workers = _num_workers(config) if config.workers or config.local else "all CPUs"
    say(f"workers  {workers}, {where}; bad images: {config.on_error}")
    if finished:
        say(f"resume   {finished} of {num_shards} shards are finished and kept")


def _build(config: PreprocessConfig, plan: Plan, todo: list[ShardSpec], bad: list[dict[str, Any]]) -> int:
    """Build the shards that are left, appending bad samples to `bad`; returns how many images were prepared."""
    from pipeline.shards.executors import run_shards

    _check_limit(config, bad)  # those that an earlier run left out count too
    if not todo:
        return 0
    total, num_bad = sum(int(plan.bounds[t.shard + 1] - plan.bounds[t.shard]) for t in todo), len(bad)
    done, num_shards = plan.num_samples - total, plan.num_shards - len(todo)
    with tqdm(total=plan.num_samples, initial=done, unit=" images", desc=f"preprocess {plan.split}") as bar:
        for result in run_shards(config, todo):
            num_bad, num_shards = num_bad + result["num_bad"], num_shards + 1
            bar.set_postfix_str(f"shards={num_shards}/{plan.num_shards}, bad={num_bad}", refresh=False)
            bar.update(result["num_samples"] + result["num_bad"])
            bad.extend(result["bad"])
            _check_limit(config, bad)
    return total


def _check_limit(config: PreprocessConfig, bad: list[dict[str, Any]]) -> None:
    if config.max_errors is not None and len(bad) > config.max_errors:
        raise DataError(
            f"{len(bad)} images are bad, more than --max-errors {config.max_errors} allows. {_listing(bad)} "
            f"Finished shards are kept."
        )


def _settle_errors(config: PreprocessConfig, out: str, split: str, bad: list[dict[str, Any]]) -> None:
    """Under `fail` a bad sample ends the run here, with all of them in the error table."""
    bad.sort(key=lambda sample: sample["source"])
    if bad and config.on_error == "fail":
        table = errors_uri(out, split)
        storage.put(table, error_table(bad))
        raise DataError(
            f"{len(bad)} of the images cannot be prepared, so split '{split}' is not finished. {_listing(bad)} All of "
            f"them are listed in {table}. Replace or remove these images and run again, or leave them out with "
            f"--on-error skip; finished shards are kept."
        )


def _listing(bad: list[dict[str, Any]]) -> str:
    lines = "; ".join(f"{sample['source']} {sample['reason']}" for sample in bad[:10])
    return f"{lines}; and {len(bad) - 10} more." if len(bad) > 10 else f"{lines}."


def main(argv: list[str]) -> int:
    config = parse(PreprocessConfig, argv, prog="focusvit preprocess")
    stream = sys.stderr if config.json else sys.stdout

    def say(text: str) -> None:
        stream.write(text + "\n")
        stream.flush()

    result = preprocess(config, say)
    content = asdict(result) if isinstance(result, Summary) else result
    line = f"preprocess {result.line()}" if isinstance(result, Summary) else result["text"]
    sys.stdout.write((json_text(content) if config.json else line) + "\n")
    return 0
