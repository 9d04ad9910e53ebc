"""`--dry-run`: prepare a few images of a plan and say what all of them would take."""

import time
from contextlib import suppress
from typing import Any

import numpy as np

from pipeline.image.image import BadImage, ImageConfig
from pipeline.image.png import decode_gray8
from pipeline.plan.plan import Plan
from pipeline.shards.build import make_sample, prove_machine
from pipeline.superpixels.segment import SuperpixelConfig

from .io import tar
from .sources import Reader

_IMAGES = 48  # 1 s; the spread of photo sizes leaves about 10 % of error


def estimate(
    plan: Plan, source: Reader, image: ImageConfig, superpixels: SuperpixelConfig, *, workers: int
) -> dict[str, Any]:
    """Estimate of a run, from images at even distances in the plan: time (s) with `workers`, storage (bytes)."""
    prove_machine("")
    picks = np.unique(np.linspace(0, plan.num_samples - 1, min(_IMAGES, plan.num_samples)).astype(int))
    rows = plan.table.take(picks).to_pylist()
    seconds, sizes, bad = [], [], []
    values: set[int] = set()
    with suppress(BadImage):  # the first one compiles and loads; it says nothing about speed
        make_sample(rows[0], source, image, superpixels)
    for row in rows:
        started = time.perf_counter()
        try:
            members = make_sample(row, source, image, superpixels)
        except BadImage as error:
            bad.append(f"{row['source']} {error}")
            continue
        seconds.append(time.perf_counter() - started)
        sizes.append(sum(tar.BLOCK + tar.padded(len(data)) for data in members.values()))
        if "seg.png" in members:
            values.update(np.unique(decode_gray8(members["seg.png"])).tolist())
    per_image = float(np.mean(seconds)) if seconds else 0.0
    total_s = per_image * plan.num_samples / max(1, workers)
    ends = (plan.num_shards) * (2 * tar.BLOCK + tar.RECORD // 2)
    total_bytes = int(np.mean(sizes) * plan.num_samples) + ends if sizes else 0
    text = (
        f"dry run: {plan.num_samples} images, {len(plan.classes)} classes, {plan.num_shards} shards; "
        f"from {len(rows)} timed images ({len(bad)} bad): {per_image * 1e3:.1f} ms an image, about "
        f"{_duration(total_s)} with {max(1, workers)} workers, about {total_bytes / 1e6:.1f} MB of shards. "
        f"Nothing was written."
    )
    if values:
        text += f" Label values in their maps: {_ranges(sorted(values))}."
    if bad:
        text += f" Bad: {'; '.join(bad[:5])}."
    return {
        "split": plan.split,
        "num_samples": plan.num_samples,
        "num_classes": len(plan.classes),
        "num_shards": plan.num_shards,
        "ms_per_image": round(per_image * 1e3, 3),
        "estimated_s": round(total_s, 1),
        "estimated_bytes": total_bytes,
        "timed": len(rows),
        "label_values": sorted(values),
        "bad": bad,
        "text": text,
    }


def _ranges(numbers: list[int]) -> str:
    """'0-11, 255' for 0, 1, ..., 11, 255."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
