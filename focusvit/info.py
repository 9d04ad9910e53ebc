"""`focusvit info`: what a data set, a checkpoint or a run directory holds, told by its own files."""

import dataclasses
import json
import sys
from dataclasses import dataclass
from typing import Any

from pipeline import storage
from pipeline.commandline import Positional, parse
from pipeline.dataset import DATASET_FILE, Split, open_dataset
from pipeline.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class InfoConfig:
    """What a data set folder, a checkpoint or a run directory holds."""

    place: Positional[str]
    """A folder of `focusvit preprocess`, `focusvit pretrain` or one checkpoint."""
    json: bool = False
    """Print one JSON object."""


def main(argv: list[str]) -> int:
    config = parse(InfoConfig, argv, prog="focusvit info")
    uri = storage.resolve(config.place)
    names = set(storage.list_names(uri))
    if not names:
        raise UsageError(f"{uri} does not exist or is empty. Name a data set folder, a run directory or a checkpoint.")
    if DATASET_FILE in names or any(name.endswith(".tar") for name in names):
        facts, lines = describe_dataset(uri)
    elif "checkpoint.json" in names or "checkpoints" in names:
        facts, lines = describe_checkpoint(uri)
    else:
        raise UsageError(
            f"{uri} is neither a data set ({DATASET_FILE}) nor a run or checkpoint (checkpoints/, checkpoint.json); it "
            f"holds {', '.join(sorted(names)[:5])}. Name a folder that a focusvit command wrote."
        )
    sys.stdout.write(json.dumps(facts) + "\n" if config.json else "\n".join(lines) + "\n")
    return 0


def describe_dataset(uri: str) -> tuple[dict[str, Any], list[str]]:
    """Facts as JSON values, and the same as lines for people. Raises UsageError, DataError as `open_dataset`."""
    dataset = open_dataset(uri)
    splits = {name: _split_facts(dataset.split(name)) for name in dataset.splits}
    superpixels = dataclasses.asdict(dataset.superpixels)
    facts = {
        "kind": "dataset",
        "uri": uri,
        "format_version": dataset.format_version,
        "classes": list(dataset.classes),
        "superpixels": superpixels,
        "image": dataset.image,
        "splits": splits,
    }
    lines = [
        f"data set {uri} (format {dataset.format_version})",
        f"classes: {len(dataset.classes)} ({_shortened(dataset.classes)})",
        f"images: {_settings(dataset.image)}",
        f"superpixels: {_settings(superpixels)}",
    ]
    for name, split in splits.items():
        lines += [
            f"split {name}: {split['num_samples']:,} samples in {split['num_shards']} shards, "
            f"{split['num_bytes'] / 1e6:,.1f} MB, {split['num_skipped']} skipped",
            f"  per class: {split['per_class']}",
            f"  root hash {split['root_hash'][:16]}, identity {split['identity'][:16]}, from {split['source']}",
        ]
    return facts, lines


def _split_facts(split: Split) -> dict[str, Any]:
    import numpy as np

    labelled = split.class_ids[split.class_ids >= 0]
    counts = np.bincount(labelled, minlength=split.num_classes) if split.num_classes else np.zeros(0, int)
    text = f"{counts.min()} to {counts.max()} samples" if len(labelled) else "no class ids"
    empty = [split.classes[i] for i in np.flatnonzero(counts == 0)] if len(labelled) else []
    if empty:
        text += f"; {len(empty)} classes without a sample ({_shortened(tuple(empty))})"
    unlabelled = int((split.class_ids < 0).sum())
    if unlabelled and len(labelled):
        text += f"; {unlabelled} samples without class"
    return {**dataclasses.asdict(split.info), "per_class": text, "classes_without_samples": empty}


def describe_checkpoint(uri: str) -> tuple[dict[str, Any], list[str]]:
    """As `describe_dataset`, for a checkpoint folder or run directory (its best checkpoint)."""
    from .checkpoint import load_checkpoint, load_weights
    from .run import RunDir

    record = load_checkpoint(uri)
    weights = load_weights(record.uri)
    num_parameters = sum(tensor.numel() for tensor in weights.values())
    run = RunDir(uri)
    others = run.checkpoints()
    facts = {
        "kind": "checkpoint",
        **dataclasses.asdict(record),
        "num_parameters": num_parameters,
        "checkpoints_in_run": others,
        "run": run.info(),
    }
    model = record.model
    tokens = f"{model['tokens']} tokens of {model.get('partition')}" if model.get("tokens") else "plain ViT, no pooling"
    lines = [f"checkpoint {record.uri}"]
    if others:
        lines.append(f"run {uri}: checkpoints at {', '.join(f'{count:,}' for count in others)} samples seen")
    lines += [
        f"model: {num_parameters / 1e6:.2f} M parameters, width {model.get('width')}, depth {model.get('depth')}, "
        f"{model.get('image_px')} px, {tokens}",
        f"classes: {len(record.classes)} ({_shortened(record.classes)})",
        f"trained on {record.samples_seen:,} samples of {record.data_uri} (identity {record.data_identity[:16]})",
        f"superpixels: {_settings(record.superpixels)}",
        "scores: " + (_settings(record.metrics) or "none yet"),
        f"MLflow run: {record.run_id or 'none'}",
    ]
    return facts, lines


def _shortened(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def _settings(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )
