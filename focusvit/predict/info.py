"""`focusvit info`: what a data set, a checkpoint or a run directory holds, told by its own files."""

import dataclasses
import sys
from typing import Any

from focusvit.box.names import checkpoint_place
from focusvit.options import InfoConfig
from focusvit.runs.checkpoint_record import is_host_folder
from pipeline.care.holdings import describe_dataset
from pipeline.commandline import parse
from pipeline.errors import UsageError
from pipeline.io import storage
from pipeline.io.json_text import json_text
from pipeline.shards.dataset import DATASET_FILE


def main(argv: list[str]) -> int:
    config = parse(InfoConfig, argv, prog="focusvit info")
    uri = checkpoint_place(config.place)
    names = set(storage.list_names(uri))
    if not names and storage.exists(uri):
        raise UsageError(f"{uri} is a file. Name a data set folder, a run directory or a checkpoint.")
    if not names:
        raise UsageError(f"{uri} does not exist or is empty. Name a data set folder, a run directory or a checkpoint.")
    if DATASET_FILE in names or any(name.endswith(".tar") for name in names):
        facts, lines = describe_dataset(uri)
    elif "checkpoint.json" in names or "checkpoints" in names or is_host_folder(uri):
        facts, lines = describe_checkpoint(uri)
    else:
        raise UsageError(
            f"{uri} is neither a data set ({DATASET_FILE}) nor a run or checkpoint (checkpoints/, checkpoint.json); it "
            f"holds {', '.join(sorted(names)[:5])}. Name a folder that a focusvit command wrote."
        )
    sys.stdout.write(json_text(facts) + "\n" if config.json else "\n".join(lines) + "\n")
    return 0


def describe_checkpoint(uri: str) -> tuple[dict[str, Any], list[str]]:
    """As `describe_dataset`, for a checkpoint folder or run directory (its best checkpoint)."""
    from focusvit.runs.checkpoint import read_checkpoint
    from focusvit.runs.run_dir import RunDir

    record, weights = read_checkpoint(uri)
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
    pooled = model.get("partition") or f"{model.get('merge')} before block {model.get('pool_before')}"
    tokens = f"{model['tokens']} tokens of {pooled}" if model.get("tokens") else "plain ViT, no pooling"
    host = f"{model['architecture']} of {model['library']}, " if "library" in model else ""
    lines = [f"checkpoint {record.uri}"]
    if others:
        lines.append(f"run {uri}: checkpoints at {', '.join(f'{count:,}' for count in others)} samples seen")
    lines += [
        f"model: {host}{num_parameters / 1e6:.2f} M parameters, width {model.get('width')}, "
        f"depth {model.get('depth')}, {model.get('image_px')} px, {tokens}",
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
