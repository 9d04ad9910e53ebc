"""Images that stand in two splits of one data set: what is trained on would be tested on.

The same place in the same source is refused before anything is built. The same bytes are known by the first digits of
their sha256, which sidecars hold: half of a split or more is refused, less is said (published sets hold a few copies).
"""

import contextlib
import hashlib
import re
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from pipeline.errors import DataError, UsageError, shorten
from pipeline.io import storage
from pipeline.io.scan import in_parallel
from pipeline.plan.plan import Plan, read_places, read_shard_rows
from pipeline.sources.source import Reader

from .dataset import STATE_FOLDER, plan_uri
from .sample import content_id
from .sidecar import load_sidecar

_PROBED = 32
_HINT = (
    "What is trained on would be tested on. Give this split a source of its own, or make both splits of one source "
    "with --val-share, for example 0.2."
)


def refuse_same_places(out: str, plan: Plan, other: str) -> None:
    """Refuse a plan that reads what split `other` of the same source reads. Raises UsageError."""
    here, there = plan.table.select(["source", "file", "offset"]), read_places(plan_uri(out, other))
    found = here.join(there.select(["file", "offset"]), ["file", "offset"], join_type="left semi", use_threads=False)
    if shared := found["source"].to_pylist():
        raise UsageError(
            f"{len(shared)} of the {plan.num_samples} images of split '{plan.split}' are in split '{other}' of {out} "
            f"already: {shorten(sorted(shared), 3)}. {_HINT}"
        )


def refuse_same_bytes(out: str, plan: Plan, others: Sequence[str], reader: Reader) -> None:
    """Look at the first images of a plan (a random draw of all): refuse when half of them or more have the bytes of
    images in another split. Raises UsageError.
    """
    known = {other: np.unique(_content_ids(out, other)[0]) for other in others}
    if not any(map(len, known.values())):
        return
    found: dict[str, int] = {}
    for row in plan.table.slice(0, _PROBED).to_pylist():
        with contextlib.suppress(OSError, DataError):  # the build says what is wrong with an image
            data = reader.read(row["file"], row["offset"], row["length"])
            found[row["source"]] = content_id(hashlib.sha256(data).hexdigest())
    for other, ids in known.items():
        shared = sorted(name for name, number in found.items() if number in ids)
        if shared and 2 * len(shared) >= len(found):
            raise UsageError(
                f"{len(shared)} of the first {len(found)} images of split '{plan.split}' have the bytes of images in "
                f"split '{other}' of {out}: {shorten(shared, 3)}. {_HINT}"
            )


def shared_images(uri: str, splits: Sequence[str]) -> list[str]:
    """A sentence for each two splits that hold images of the same bytes, from their sidecars; nothing is decoded. Data
    sets of before this was recorded give none.
    """
    ids = {split: _content_ids(uri, split) for split in splits}
    sentences = []
    for first, second in combinations(sorted(splits, key=lambda split: -len(ids[split][0])), 2):
        shared = np.flatnonzero(np.isin(ids[second][0], ids[first][0]))
        if len(shared):
            names = _names(uri, second, ids[second][1], shared[:3])
            sentences.append(
                f"{len(shared)} of the {len(ids[second][0])} images of split '{second}' have the bytes of images in "
                f"split '{first}'{f', for example {names}' if names else ''}: what is trained on is tested on"
            )
    return sentences


def _content_ids(uri: str, split: str) -> tuple[np.ndarray, list[tuple[int, set[str]]]]:
    """(int64 content ids of all samples in shard order, for each shard: count, skipped keys)."""
    names = storage.list_names(storage.join(uri, STATE_FOLDER, "shards"))
    shards = [int(found[1]) for name in names if (found := re.fullmatch(rf"{split}-(\d+)\.json", name))]

    def read(shard: int) -> tuple[np.ndarray, set[str]]:
        try:
            sidecar = load_sidecar(uri, split, shard) or {}
        except OSError:  # of a store; whoever needs the shard says it
            sidecar = {}
        ids = np.array(sidecar.get("content_ids", ()), np.int64)
        return ids, {sample["key"] for sample in sidecar.get("skipped", ())}

    parts = list(in_parallel(read, shards))
    ids = np.concatenate([part for part, _ in parts]) if parts else np.zeros(0, np.int64)
    return ids, [(len(part), skipped) for part, skipped in parts]


def _names(uri: str, split: str, shards: list[tuple[int, set[str]]], samples: np.ndarray) -> str:
    """Source ids of samples by number; empty when the plan cannot be read."""
    ends = np.cumsum([count for count, _ in shards])
    found = []
    with contextlib.suppress(OSError, DataError, IndexError):
        for sample in samples.tolist():
            shard = int(np.searchsorted(ends, sample, side="right"))
            count, skipped = shards[shard]
            rows = [row for row in read_shard_rows(plan_uri(uri, split), shard) if row["key"] not in skipped]
            found.append(rows[sample - int(ends[shard]) + count]["source"])
    return ", ".join(found)
