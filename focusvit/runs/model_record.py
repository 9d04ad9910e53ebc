"""What a checkpoint's record says of its model: a FocusViT, or a host of another library, patched or not.

A folder of Hugging Face or timm has a record too, made of what it says about itself.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

from focusvit.drop_in.host_config import HostConfig, ModelConfig
from focusvit.drop_in.settings import with_patch
from pipeline.errors import UsageError

from .checkpoint_record import Checkpoint, first_sound, is_host_folder, record_at
from .config_json import from_json, one_of, to_json

if TYPE_CHECKING:
    from torch import Tensor


def model_config(record: Checkpoint) -> ModelConfig:
    """What the checkpoint's model is built from. Raises `UsageError` for one that this version does not know."""
    found: ModelConfig = from_json(one_of(get_args(ModelConfig), record.model), record.model, f"{record.uri}: model")
    return found


def host_checkpoint(uri: str) -> tuple[Checkpoint, dict[str, "Tensor"]]:
    """Record and weights of another library's folder: no head, no classes. See `read_host` for what it raises."""
    from focusvit.weights.host_folder import read_host  # with torch and a library: options are read without them

    host, crop, weights = read_host(uri)
    model, data = to_json(host), {"image_px": host.image_px, "eval_crop_fraction": crop}
    return Checkpoint(uri=uri, model=model, config={"model": model, "data": data}), weights


def quick_record(uri: str, patch: Sequence[str] = ()) -> Checkpoint:
    """The record that `uri` means, of a checkpoint read without its weights: quick, and no proof that they are sound.
    See `first_sound` and `patched_record` for what it raises."""
    record = first_sound(uri, lambda place: host_checkpoint(place)[0] if is_host_folder(place) else record_at(place))
    return patched_record(record, patch)


def patched_record(record: Checkpoint, patch: Sequence[str]) -> Checkpoint:
    """The record of the same weights in a host patched as `--patch` says (`with_patch`).

    Raises `UsageError` for a model that is no host, and for what the host cannot take.
    """
    if not patch:
        return record
    config = model_config(record)
    if not isinstance(config, HostConfig):
        raise UsageError(
            f"--patch {' '.join(patch)}: {record.uri} is a FocusViT, which has superpixels of its own (--tokens says "
            "how many). Name a host: a folder of Hugging Face or timm, or a run that fine-tuned one."
        )
    changed = with_patch(config, patch)
    data = {**record.config.get("data", {}), "image_px": changed.image_px}
    if changed.image_px != config.image_px:
        data.pop("map_px", None)  # it belonged to the other grid
    model = to_json(changed)
    return dataclasses.replace(record, model=model, config={**record.config, "model": model, "data": data})
