"""A checkpoint of an untrained small network, complete and readable by every verb, in a tenth of a second."""

import dataclasses
from pathlib import Path

import torch

from focusvit.data.loader import DataConfig
from focusvit.model.model import FocusViT, FocusViTConfig
from focusvit.runs.checkpoint import Checkpoint, save_checkpoint
from focusvit.runs.checkpoint_record import put_record, record_at
from focusvit.runs.config_json import to_json
from pipeline.image.image import ImageConfig
from pipeline.superpixels.segment import SuperpixelConfig

from .tiny_shards import CLASSES


def make_checkpoint(
    folder: Path, *, seed: int = 0, samples_seen: int = 1000, classes: tuple[str, ...] = CLASSES, **model_changes
) -> str:
    """Write the checkpoint and return its path. `model_changes` are fields of FocusViTConfig."""
    values = {"image_px": 32, "patch_px": 8, "width": 32, "depth": 2, "heads": 2, "tokens": 9}
    values["num_classes"] = len(classes)
    model = FocusViTConfig(**{**values, **model_changes})
    torch.manual_seed(seed)
    record = Checkpoint(
        config={"data": to_json(DataConfig(image_px=model.image_size[0], eval_crop_fraction=1.0))},
        model=to_json(model),
        classes=classes,
        samples_seen=samples_seen,
        metrics={"val/top1": 0.5},
        superpixels=dataclasses.asdict(SuperpixelConfig()),
        image=dataclasses.asdict(ImageConfig()),
    )
    save_checkpoint(str(folder), record, FocusViT(model).state_dict())
    return str(folder)


def edit_checkpoint(place: str, **changes) -> str:
    """Another record on the same weights, as if it had been saved so; returns the place."""
    put_record(dataclasses.replace(record_at(place), **changes))
    return place
