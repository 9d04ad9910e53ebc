"""The plan of a split: every sample's key, class and shard, fixed and stored before the first image is read.

Samples are ordered by a hash of their id and cut into shards of equal count. So the plan depends on the set of ids
alone: not on the order of a listing, the number of workers or the place of the source.
"""

import contextlib
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import DataError, UsageError, shorten
from pipeline.io import storage
from pipeline.io.parquet import open_parquet_file
from pipeline.sources.source import Source, Unlabelled
from pipeline.sources.splits import meaning

from .columns import SCHEMA, Columns, PlanRow
from .selection import in_val, settled_images

# What Arrow and this file raise for flipped bytes: text that is no UTF-8, names that are gone, sizes beyond all sense.
_DAMAGE = (pa.ArrowException, OSError, LookupError, ValueError, TypeError, AttributeError)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Rows in final order; shard i holds rows [bounds[i], bounds[i+1])."""

    split: str
    table: pa.Table  # of SCHEMA
    classes: tuple[str, ...]
    bounds: np.ndarray  # int64 (num_shards + 1,)
    digest: str  # of ids, keys, classes and cuts, in order

    @property
    def num_samples(self) -> int:
        return self.table.num_rows

    @property
    def num_shards(self) -> int:
        return len(self.bounds) - 1

    def class_counts(self) -> dict[str, int]:
        """Samples of each class, by name."""
        ids = self.table.column("class_id").to_numpy()
        counts = np.bincount(ids[ids >= 0], minlength=len(self.classes))
        return dict(zip(self.classes, counts.tolist()))


def make_plan(
    source: Source,
    split: str,
    *,
    samples_per_shard: int | None = None,
    max_samples: int | None = None,
    checksums: dict[str, str] | None = None,
    val_share: float | None = None,
    known_classes: tuple[str, ...] = (),
    unlabelled: Unlabelled = "keep",
) -> Plan:
    """List the source and decide everything. Raises UsageError or DataError that says what is off with the source.

    `checksums` are the sha256 (hex) that the bytes of each source id must have. `max_samples` takes an equal share of
    every class, always the same one. `val_share` takes that share of the images for a split that means val, and the
    others for another. `known_classes` are those of the data set that the split enters. `unlabelled` images beside
    labelled ones are refused, kept or left out. About 10 s and 400 MB for 1.28 million rows.
    """
    columns = Columns(split, checksums or {})
    for image in settled_images(source, unlabelled):
        columns.add(image)
    if columns.num_unchecked:
        raise UsageError(
            f"{columns.num_unchecked} of the {columns.num_rows} images in {source.root} have no line in the checksums. "
            f"Names there must be those of the source, for example 'n01440764/n01440764_10026.JPEG'."
        )
    stated = source.classes
    classes = columns.classes(stated, source.root, known_classes)
    hashes = columns.hashes()
    table = columns.table(classes, stated)
    _check_unique(table, hashes[1])
    order = np.lexsort(hashes)
    del columns, hashes
    if val_share is not None:
        val = in_val(table.column("source").to_pylist(), table.column("class_id").to_numpy(), classes, val_share)
        order = order[val[order] == (meaning(split) == "val")]
    if max_samples is not None:
        order = order[_balanced(table.column("class_id").to_numpy()[order], max_samples)]
    parts = table.columns
    del table
    table = _take(parts, order)
    pa.default_memory_pool().release_unused()
    num_shards = -(-len(order) // (samples_per_shard or default_shard_size(len(order))))
    bounds = np.arange(num_shards + 1, dtype=np.int64) * len(order) // num_shards
    return Plan(split=split, table=table, classes=classes, bounds=bounds, digest=_digest(table, classes, bounds))


def default_shard_size(num_samples: int) -> int:
    """About 32 shards of 64 to 1000 samples: enough to share among workers, few enough files for a large set."""
    return min(1000, max(64, -(-num_samples // 32)))


def _balanced(class_ids: np.ndarray, limit: int) -> np.ndarray:
    """Positions of `limit` rows, in order: the first of each class, then the second of each, and so on."""
    by_class = np.argsort(class_ids, kind="stable")
    sorted_ids = class_ids[by_class]
    first = np.searchsorted(sorted_ids, sorted_ids, side="left")
    rank = np.empty(len(class_ids), np.int64)
    rank[by_class] = np.arange(len(class_ids)) - first
    return np.sort(np.lexsort((np.arange(len(class_ids)), rank))[:limit])


def _take(columns: list[pa.ChunkedArray], order: np.ndarray) -> pa.Table:
    """A table of the rows in another order. Empties `columns`, so that no second copy of all of them is alive."""
    take, taken = pa.array(order), []
    while columns:
        taken.append(columns.pop(0).take(take).combine_chunks())
    return pa.table(taken, schema=SCHEMA)


def _check_unique(table: pa.Table, hashes: np.ndarray) -> None:
    """Keys differ when the hashes in them do; only where these meet, the whole keys are compared."""
    ordered = np.sort(hashes)
    meeting = np.isin(hashes, ordered[1:][ordered[1:] == ordered[:-1]])
    rows = table.select(["source", "key"]).filter(pa.array(meeting)).to_pylist() if meeting.any() else []
    twice = [key for key, count in Counter(row["key"] for row in rows).items() if count > 1]
    if twice:
        sources = [row["source"] for row in rows if row["key"] == twice[0]]
        raise DataError(
            f"{len(twice)} sample keys occur twice, for example {twice[0]} for {' and '.join(sources[:2])}. "
            f"The source lists the same image more than once: remove the copies."
        )


def _digest(table: pa.Table, classes: tuple[str, ...], bounds: np.ndarray) -> str:
    """Over what decides the content of shards; not over files and offsets, so that a source may move."""
    total = hashlib.sha256(json.dumps([list(classes), bounds.tolist()]).encode())
    for batch in table.select(["source", "key", "class_id", "labels"]).to_batches(max_chunksize=10_000):
        columns = [batch.column(number).to_pylist() for number in range(4)]
        total.update("\n".join(f"{s}\t{k}\t{c}\t{lab}" for s, k, c, lab in zip(*columns)).encode() + b"\n")
    return total.hexdigest()


def save_plan(uri: str, plan: Plan, description: dict[str, Any]) -> None:
    """Write the plan, one row group for each shard. `description` travels in its metadata."""
    content = {
        "description": description,
        "classes": plan.classes,
        "bounds": plan.bounds.tolist(),
        "digest": plan.digest,
    }
    schema = SCHEMA.with_metadata({"focusvit": json.dumps(content), "split": plan.split})
    # Names and keys all differ, so a dictionary of them, and their extremes in the footer, would double the file.
    few = ["label_file", "sha256", "class_id"]
    options = {"compression": "zstd", "use_dictionary": few, "write_statistics": False}
    with storage.writing(uri) as file, pq.ParquetWriter(file, schema, **options) as writer:
        for start, stop in zip(plan.bounds[:-1].tolist(), plan.bounds[1:].tolist()):
            writer.write_table(plan.table.slice(start, stop - start).replace_schema_metadata(schema.metadata))


def relocate(plan: Plan, source: Source) -> Plan:
    """The same plan with the files and offsets of another place or layout of its samples. Raises DataError."""
    places = {image.source: (image.file, image.offset, image.length, image.label_file) for image in source.images()}
    ids = plan.table.column("source").to_pylist()
    missing = [name for name in ids if name not in places]
    if missing:
        raise DataError(
            f"{len(missing)} of the {len(ids)} samples of the plan are not in the source {source.root}: "
            f"{shorten(missing)}. Name the source of before with --source."
        )
    table = plan.table
    for number, name in enumerate(("file", "offset", "length", "label_file")):
        place = SCHEMA.get_field_index(name)
        table = table.set_column(
            place, SCHEMA.field(place), pa.array([places[name][number] for name in ids], SCHEMA.field(place).type)
        )
    return replace(plan, table=table)


@contextlib.contextmanager
def _sound(uri: str) -> Iterator[None]:
    """What damaged bytes raise becomes a DataError; what the disk or the store raises goes on."""
    try:
        yield
    except _DAMAGE as error:
        if isinstance(error, OSError) and (error.errno is not None or isinstance(error, storage.StoreError)):
            raise  # Arrow's own have no number
        raise DataError(f"the stored plan {uri} is damaged ({error}).") from None


def load_plan(uri: str) -> tuple[Plan, dict[str, Any]]:
    """The stored plan and its description. Raises FileNotFoundError; DataError when it is damaged."""
    data = storage.read_bytes(uri)
    with _sound(uri):
        table = pq.ParquetFile(io.BytesIO(data), pre_buffer=False).read(use_threads=False)
        content = json.loads(table.schema.metadata[b"focusvit"])
        plan = Plan(
            split=table.schema.metadata[b"split"].decode(),
            table=table.replace_schema_metadata(None),
            classes=tuple(content["classes"]),
            bounds=np.array(content["bounds"], np.int64),
            digest=content["digest"],
        )
        plan.table.validate(full=True)
        sound = _digest(plan.table, plan.classes, plan.bounds) == plan.digest
        description = dict(content["description"])
    if not sound:
        raise DataError(f"the stored plan {uri} is damaged: its rows do not have the digest that it states.")
    return plan, description


def read_head(uri: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    """(classes, description) of a stored plan, without its rows. Raises as `load_plan`."""
    with _sound(uri):
        content = json.loads(open_parquet_file(uri).schema_arrow.metadata[b"focusvit"])
        return tuple(content["classes"]), dict(content["description"])


def read_places(uri: str) -> pa.Table:
    """Columns source, file and offset of a stored plan. Raises as `load_plan`."""
    with _sound(uri):
        return open_parquet_file(uri).read(["source", "file", "offset"], use_threads=False)


def read_shard_rows(uri: str, shard: int) -> list[PlanRow]:
    """Rows of one shard: what a worker reads of a plan. Raises OSError; DataError when damaged."""
    with _sound(uri):
        return open_parquet_file(uri).read_row_group(shard, use_threads=False).to_pylist()
