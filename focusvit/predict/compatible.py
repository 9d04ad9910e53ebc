"""Whether a checkpoint and a data set belong together: the same superpixels, classes that can be matched by name."""

import dataclasses

import numpy as np

from focusvit.data.loader import DataConfig
from focusvit.runs.checkpoint import Checkpoint
from focusvit.runs.config_json import difference, from_json
from pipeline.errors import UsageError
from pipeline.shards.dataset import Dataset, Split


def data_config(record: Checkpoint, loader_workers: int) -> DataConfig:
    """How the checkpoint's training looked at images, so that evaluation looks the same way."""
    data = from_json(DataConfig, record.config.get("data", {}), f"{record.uri}: data")
    return dataclasses.replace(data, loader_workers=loader_workers)


def check_tokens(record: Checkpoint, tokens: int | None) -> None:
    """Refuse more tokens than the checkpoint's maps have pixels."""
    data = data_config(record, loader_workers=0)
    if tokens and tokens > data.most_tokens:
        raise UsageError(
            f"{tokens} tokens are too many: {record.uri} looks at maps of {data.map_side} x {data.map_side} pixels, so "
            f"choose 1 to {data.most_tokens}."
        )


def check_superpixels(record: Checkpoint, dataset: Dataset) -> None:
    """Refuse a data set whose regions were made with other settings than the ones the model learned from."""
    changed = difference(record.superpixels, dataclasses.asdict(dataset.superpixels)) if record.superpixels else []
    if changed:
        raise UsageError(
            f"the superpixels at {dataset.uri} were made with other settings than those of {record.uri}: "
            f"{'; '.join(changed)} (checkpoint -> data set). The score would measure this difference. Preprocess the "
            "images again with the checkpoint's settings, or train on this data set."
        )


def check_labelled(split: Split) -> None:
    """Refuse a split in which some sample has no class."""
    missing = int((split.class_ids < 0).sum())
    if missing or not split.num_samples:
        raise UsageError(
            f"{missing} of {split.num_samples} samples of split '{split.name}' at {split.uri} have no class, so there "
            "is nothing to score. Choose a labelled split, or use `focusvit predict` on the images."
        )


def class_columns(record: Checkpoint, dataset: Dataset) -> np.ndarray | None:
    """int64 (C,): the model's output for each class of the data set; None when the two lists are the same.

    A data set may hold a part of the model's classes, in any order (ImageNet-A, -R and -Sketch do). Then only these
    outputs compete. Raises UsageError that names a class which the model does not know.
    """
    if record.classes == dataset.classes:
        return None
    if not record.classes:
        raise UsageError(
            f"{record.uri} was pretrained without labels, so it knows no classes. Use `focusvit transfer`, or "
            "fine-tune it first (`focusvit finetune`)."
        )
    place = {name: index for index, name in enumerate(record.classes)}
    unknown = [name for name in dataset.classes if name not in place]
    if unknown:
        raise UsageError(
            f"{len(unknown)} of {len(dataset.classes)} classes of {dataset.uri} are unknown to {record.uri}, the first "
            f"is '{unknown[0]}'. Use `focusvit transfer` or `focusvit finetune` for a data set with other classes."
        )
    return np.array([place[name] for name in dataset.classes], np.int64)
