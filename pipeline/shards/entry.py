"""`dataset.json`: its content, and how a split enters it beside others that are finished at the same moment."""

import contextlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from pipeline.errors import DataError, UsageError
from pipeline.io import storage
from pipeline.plan.plan import Plan

from .dataset import DATASET_FILE, SplitInfo, open_dataset, read_index
from .interop import TIMM_FILE, timm_info
from .sample import FORMAT_VERSION

_TRIES = 10


def enter_split(out: str, plan: Plan, description: dict[str, Any], info: SplitInfo) -> None:
    """Write `dataset.json` with this split and all that are in it. Raises DataError when other runs never let it be.

    Runs on one machine wait for each other. A store has no lock: what is there is read again before and after the
    write, and every split that was seen stays. One moment is left: a run that read before this write and writes after
    the last look here drops this split; the command of the split, run again, enters it again.
    """
    seen: dict[str, SplitInfo] = {}
    with storage.locked(out):
        for _ in range(_TRIES):
            before = _entered(out)
            seen = {**seen, **before, plan.split: info}
            files = dataset_files(out, plan.classes, description, seen)
            if _entered(out) != before:  # reading the indexes of a large set takes seconds
                continue
            for place, data in files.items():
                storage.put(place, data)
            if seen.items() <= _entered(out).items():
                return
    raise DataError(
        f"split '{plan.split}' could not be entered in {storage.join(out, DATASET_FILE)} in {_TRIES} tries: other runs "
        f"write this file at the same time. Its shards are finished; run the command again when the others are done."
    )


def _entered(out: str) -> dict[str, SplitInfo]:
    return open_dataset(out).splits if storage.exists(storage.join(out, DATASET_FILE)) else {}


def dataset_files(
    out: str, classes: Sequence[str], description: dict[str, Any], splits: dict[str, SplitInfo]
) -> dict[str, bytes]:
    """`dataset.json` and, before it, timm's file, for these splits. Their sample indexes must be written.

    Raises DataError for a damaged index.
    """
    if not classes:  # an unlabelled split beside a labelled one
        with contextlib.suppress(UsageError, DataError):  # not there yet, or damaged
            classes = open_dataset(out).classes
    content = {
        "format": "focusvit shards",
        "format_version": FORMAT_VERSION,
        "classes": list(classes),
        "image": description["image"],
        "superpixels": description["superpixels"],
        "splits": {name: asdict(info) for name, info in splits.items()},
    }
    sizes = {
        name: (info, np.bincount(read_index(out, name, info)["shard"], minlength=info.num_shards).tolist())
        for name, info in splits.items()
    }
    return {
        storage.join(out, TIMM_FILE): timm_info(sizes),
        storage.join(out, DATASET_FILE): storage.json_bytes(content),
    }
