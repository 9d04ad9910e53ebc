"""A user's own image folder as a task: its splits become shards with the superpixels that the checkpoint knows."""

import dataclasses
from collections.abc import Callable

from focusvit.runs.checkpoint import Checkpoint
from pipeline.errors import UsageError
from pipeline.image.image import ImageConfig
from pipeline.io import storage
from pipeline.preprocess import PreprocessConfig, preprocess
from pipeline.shards.dataset import DATASET_FILE, STATE_FOLDER
from pipeline.sources.detect import look
from pipeline.sources.splits import wanted_split
from pipeline.superpixels.segment import SuperpixelConfig

from .task import Task


def raw_splits(uri: str) -> list[str]:
    """The splits that a place of images has, of train, val and test, by any of their names; [] for other places.

    A folder without a training split and another one is no task: what it holds could not be learned and tested apart.
    """
    names = storage.list_names(uri)
    if DATASET_FILE in names or STATE_FOLDER in names:
        return []
    try:
        there = look(uri, "train").splits
    except UsageError:
        return []
    found = [split for split in ("train", "val", "test") if wanted_split(there, split)]
    return found if "train" in found and len(found) > 1 else []


def prepared(
    task: Task, record: Checkpoint, out: str, say: Callable[[str], object], workers: int | None = None
) -> Task:
    """The task itself, or for a folder of images the task on shards below `out`, made now or found finished.

    `workers` processes make them; None is one for each CPU, 0 this one. Raises UsageError and DataError as
    `focusvit preprocess` does.
    """
    splits = raw_splits(task.uri)
    if not splits:
        return task
    place = storage.join(out, "prepared", task.name)
    for split in splits:
        config = PreprocessConfig(
            source=task.uri,
            out=place,
            split=split,
            local=True,
            workers=workers,
            image=ImageConfig(**record.image),
            superpixels=SuperpixelConfig(**record.superpixels),
        )
        say(f"{task.name}: {task.uri} holds images; its split '{split}' becomes shards in {place}\n")
        preprocess(config)
    return dataclasses.replace(task, uri=place)
