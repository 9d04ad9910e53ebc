"""What a data set holds, for `focusvit info`: sizes, classes, regions, and how fast it was made."""

from dataclasses import asdict
from typing import Any

import numpy as np

from pipeline.io.scan import in_parallel
from pipeline.shards.dataset import Split, open_dataset
from pipeline.shards.sidecar import load_sidecar


def describe_dataset(uri: str) -> tuple[dict[str, Any], list[str]]:
    """Facts as JSON values, and the same as lines for people. Raises UsageError, DataError as `open_dataset`."""
    dataset = open_dataset(uri)
    splits = {name: _split_facts(dataset.split(name)) for name in dataset.splits}
    superpixels = asdict(dataset.superpixels)
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
        lines += _lines(name, split)
    return facts, lines


def _lines(name: str, split: dict[str, Any]) -> list[str]:
    lines = [
        f"split {name}: {split['num_samples']:,} samples in {split['num_shards']} shards, "
        f"{split['num_bytes'] / 1e6:,.1f} MB, {split['num_skipped']} skipped",
        f"  per class: {split['per_class']}",
    ]
    regions, made = split["regions"], split["made"]
    if regions:
        lines.append(
            f"  regions of a map: {regions['min']} to {regions['max']}, median {regions['median']:g}, mean "
            f"{regions['mean']:.1f}"
        )
    if made:
        lines.append(
            f"  made by {made['machines']} machine{'s' * (made['machines'] > 1)}: {made['cpu_ms_per_image']:.1f} ms of "
            f"CPU an image, {made['images_per_s_per_worker']:.0f} images/s for each worker"
        )
    root = f"root hash {split['root_hash'][:16]}, identity {split['identity'][:16]}"
    return [*lines, f"  {root}, from {split['source']}"]


def _split_facts(split: Split) -> dict[str, Any]:
    labelled = split.class_ids[split.class_ids >= 0]
    counts = np.bincount(labelled, minlength=split.num_classes) if split.num_classes else np.zeros(0, int)
    text = f"{counts.min()} to {counts.max()} samples" if len(labelled) else "no class ids"
    empty = [split.classes[i] for i in np.flatnonzero(counts == 0)] if len(labelled) else []
    if empty:
        text += f"; {len(empty)} classes without a sample ({_shortened(tuple(empty))})"
    unlabelled = int((split.class_ids < 0).sum())
    if unlabelled and len(labelled):
        text += f"; {unlabelled} samples without class"
    return {**asdict(split.info), "per_class": text, "classes_without_samples": empty, **_from_sidecars(split)}


def _from_sidecars(split: Split) -> dict[str, Any]:
    """`regions` and `made`, each None when a sidecar is missing or damaged: `verify` is who says that."""

    def read(shard: int) -> tuple[np.ndarray, dict[str, Any]]:
        sidecar = load_sidecar(split.uri, split.name, shard)
        if sidecar is None:
            raise ValueError("missing or damaged")
        return np.array(sidecar["num_regions"], np.int64), sidecar["timing"]

    try:
        parts = list(in_parallel(read, range(split.info.num_shards)))
        regions = np.concatenate([found for found, _ in parts])
        timings = [timing for _, timing in parts]
        cpu_s, wall_s = (sum(float(timing[name]) for timing in timings) for name in ("cpu_s", "wall_s"))
        machines = len({timing["machine"] for timing in timings})
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {"regions": None, "made": None}
    if not len(regions):
        return {"regions": None, "made": None}
    return {
        "regions": {
            "min": int(regions.min()),
            "median": float(np.median(regions)),
            "mean": round(float(regions.mean()), 2),
            "max": int(regions.max()),
        },
        "made": {
            "machines": machines,
            "cpu_ms_per_image": round(cpu_s / len(regions) * 1e3, 2),
            "images_per_s_per_worker": round(len(regions) / wall_s, 1) if wall_s else 0.0,
        },
    }


def _shortened(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def _settings(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )
