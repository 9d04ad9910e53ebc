"""Images that stand in two splits of one data set: what is trained on would be tested on.

The same place in the same source is refused before anything is built. The same bytes are known by the first digits of
their sha256, which sidecars hold: half of a split or more is refused, less is said (published sets hold a few copies).
"""

import contextlib
import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from pipeline.errors import DataError, UsageError, shorten
from pipeline.io import storage
from pipeline.io.scan import in_parallel
from pipeline.plan.plan import Plan, read_places, read_shard_rows

from .dataset import STATE_FOLDER, plan_uri
from .probe import Probed
from .sidecar import load_sidecar

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


def refuse_same_bytes(out: str, plan: Plan, others: Sequence[str], first: Mapping[str, Probed]) -> None:
    """Refuse when half of the first images or more have the bytes of images in another split. Raises UsageError."""
    known = {other: content_ids(out, other) for other in others}
    found = {name: one.content_id for name, one in first.items()}
    for other, ids in known.items():
        shared = sorted(name for name, number in found.items() if number in ids)
        if shared and 2 * len(shared) >= len(found):
            raise UsageError(
                f"{len(shared)} of the first {len(found)} images of split '{plan.split}' have the bytes of images in "
                f"split '{other}' of {out}: {shorten(shared, 3)}. {_HINT}"
            )


def content_ids(out: str, split: str) -> np.ndarray:
    """int64, of all samples in the shards of a split; empty for data sets of before this was recorded."""
    return _stored(out, split).ids


def shared_images(uri: str, splits: Sequence[str]) -> list[str]:
    """A sentence for each two splits that hold images of the same bytes, and for each split that holds them in several
    classes, from their sidecars; nothing is decoded. Data sets of before this was recorded give none.
    """
    stored = {split: _stored(uri, split) for split in splits}
    sentences = []
    for split, one in stored.items():
        unsure = _of_several_classes(one.ids, one.class_ids)
        if len(unsure):
            sentences.append(
                f"{len(unsure)} images of split '{split}' have the bytes of others of another class"
                f"{_example(uri, split, one, unsure)}: one of their labels is wrong"
            )
    for first, second in combinations(sorted(splits, key=lambda split: -len(stored[split].ids)), 2):
        one = stored[second]
        shared = np.flatnonzero(np.isin(one.ids, stored[first].ids))
        if len(shared):
            sentences.append(
                f"{len(shared)} of the {len(one.ids)} images of split '{second}' have the bytes of images in "
                f"split '{first}'{_example(uri, second, one, shared)}: what is trained on is tested on"
            )
    return sentences


def _of_several_classes(ids: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
    """Numbers of the samples whose content stands in several classes; samples without one (-1) do not count."""
    labelled = np.flatnonzero(class_ids >= 0)
    labelled = labelled[np.lexsort((class_ids[labelled], ids[labelled]))]
    found, classes = ids[labelled], class_ids[labelled]
    unsure = found[1:][(found[1:] == found[:-1]) & (classes[1:] != classes[:-1])]
    return np.sort(labelled[np.isin(found, unsure)])


class _Stored(NamedTuple):
    """What the sidecars of a split say of its samples, in shard order."""

    ids: np.ndarray  # int64, of content
    class_ids: np.ndarray
    shards: list[tuple[int, set[str]]]  # of each: count, skipped keys


def _stored(uri: str, split: str) -> _Stored:
    names = storage.list_names(storage.join(uri, STATE_FOLDER, "shards"))
    shards = [int(found[1]) for name in names if (found := re.fullmatch(rf"{split}-(\d+)\.json", name))]

    def read(shard: int) -> tuple[np.ndarray, np.ndarray, set[str]]:
        try:
            sidecar = load_sidecar(uri, split, shard) or {}
        except OSError:  # of a store; whoever needs the shard says it
            sidecar = {}
        ids = np.array(sidecar.get("content_ids", ()), np.int64)
        class_ids = np.array(sidecar.get("class_ids", ())[: len(ids)], np.int64)
        return ids, class_ids, {one["key"] for one in sidecar.get("skipped", ())}

    parts = list(in_parallel(read, shards))
    ids, class_ids = (np.concatenate([np.zeros(0, np.int64), *(part[at] for part in parts)]) for at in (0, 1))
    return _Stored(ids, class_ids, [(len(part), skipped) for part, _, skipped in parts])


def _example(uri: str, split: str, stored: _Stored, samples: np.ndarray) -> str:
    names = _names(uri, split, stored.shards, samples[:3])
    return f", for example {names}" if names else ""


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
