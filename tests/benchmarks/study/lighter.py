"""Trained models asked with superpixels that take less time than those they learned with."""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from focusvit.model.model import FocusViT
from focusvit.runs.checkpoint import load_model, record_at
from pipeline.errors import UsageError
from pipeline.superpixels.hierarchy import fit
from pipeline.superpixels.segment import SuperpixelConfig, segment_image
from tests.benchmarks.study.arrays import ArrayData
from tests.benchmarks.study.ledger import kept_at
from tests.benchmarks.study.matrix import LIGHTER, SETS, StudySet, core_rows, lighter_settings

_AT_ONCE = 250


def lighter_records(
    root: str, sets: Sequence[str], rows: Sequence[str], seeds: int, checkpoints: str, arrays: Any, ledger: Path,
    facts: dict[str, Any],
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Top-1 of every kept model that takes maps, with those of the shards and with each of `LIGHTER`; a record of the
    ledger each, which says what the model scored at the end of its training. No setting was chosen by these scores.
    Raises `UsageError` where there is no such model.

    `root` and `arrays` are those of `speed.measure_speed`; `rows` are all where that is empty.
    """
    asked = 0
    for set_name, seed in itertools.product(sets, range(seeds)):
        of = SETS[set_name]
        for row, model in core_rows(of).items():
            kept = kept_at(checkpoints, set_name, row, seed)
            if (rows and row not in rows) or not model.needs_maps or not Path(kept, "checkpoint.json").exists():
                continue
            test = arrays(f"{root}/{of.folder}", of.test_split, model.image_size[0], of.map_px, model.tokens)
            record = {
                "set": set_name, "row": row, "stage": "lighter", "seed": seed, "scores": _scores(kept, test, of),
                "settings": lighter_settings(), "trained_top1": record_at(kept).metrics["val/top1"],
                "test_samples": len(test), **facts,
            }  # fmt: skip
            place = ledger / f"lighter-{set_name}-{Path(kept).name}.json"
            place.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            asked += 1
            yield record
    if not asked:
        raise UsageError(f"--checkpoints '{checkpoints}' holds no trained model of these rows that takes maps.")


def _scores(kept: str, test: ArrayData, of: StudySet) -> dict[str, float]:
    model, _ = load_model(kept)
    assert isinstance(model, FocusViT) and test.maps is not None and test.num_tokens is not None
    found = {"shards": top1(model, test, test.maps)}
    for name, settings in LIGHTER.items():
        found[name] = top1(model, test, maps_of(test.images, of, settings, test.num_tokens))
    return found


def maps_of(images: Tensor, of: StudySet, settings: SuperpixelConfig, tokens: int) -> Tensor:
    """(N, map_px, map_px) of images (N, 3, H, W)."""
    whole, size = (0.0, 0.0, 1.0, 1.0), (of.map_px, of.map_px)
    pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
    return torch.from_numpy(
        np.stack([fit(*segment_image(image, settings), whole, False, size, tokens) for image in pixels])
    )


@torch.inference_mode()
def top1(model: Callable[..., Tensor], test: ArrayData, maps: Tensor) -> float:
    """Share of the images whose best class is theirs, in float32."""
    right = 0
    for start in range(0, len(test), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        found = model(test.images[part], maps[part], test.num_tokens).argmax(1)
        right += int((found == test.class_ids[part]).sum())
    return right / len(test)
