"""Checkpoints: safetensors and JSON in one folder, complete if and only if `checkpoint.json` is there.

model.safetensors   the weights that the validation scored (the moving average where one is kept)
state.safetensors   what only a resume needs: optimizer moments, and the raw weights beside a moving average
checkpoint.json     configs, classes, data identity, samples seen, metrics, versions; written last
"""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from pipeline.errors import DataError, UsageError
from pipeline.io import storage

from .config_json import from_json
from .run_dir import RunDir

if TYPE_CHECKING:
    from focusvit.model.model import FocusViT

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What `checkpoint.json` holds. `uri` is where it was found."""

    uri: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    """the whole TrainConfig, as JSON values"""
    model: dict[str, Any] = field(default_factory=dict)
    """the FocusViTConfig, as JSON values"""
    classes: tuple[str, ...] = ()
    samples_seen: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    """the last validation scores, such as val/top1"""
    data_uri: str = ""
    data_identity: str = ""
    data_root_hash: str = ""
    superpixels: dict[str, Any] = field(default_factory=dict)
    """the SuperpixelConfig of the data set: `predict` segments new images the same way"""
    image: dict[str, Any] = field(default_factory=dict)
    """the ImageConfig of the data set: new images are reduced to the same stored size"""
    run_id: str | None = None
    """the MLflow run"""
    has_ema: bool = False
    counters: dict[str, int] = field(default_factory=dict)
    """replaced_samples so far (skipped steps are in the state, as guard)"""
    versions: dict[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @property
    def num_classes(self) -> int:
        return int(self.model["num_classes"])


def save_checkpoint(
    uri: str, record: Checkpoint, weights: dict[str, Tensor], state: dict[str, Tensor] | None = None
) -> None:
    """Write one checkpoint folder; `checkpoint.json` goes last and makes it complete."""
    for name, tensors in (("model.safetensors", weights), ("state.safetensors", state or {})):
        plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        storage.put(storage.join(uri, name), safetensors.torch.save(plain))
    values = dataclasses.asdict(record)
    values.pop("uri")
    storage.put_json(storage.join(uri, "checkpoint.json"), values)


def find_checkpoint(uri: str) -> str:
    """The checkpoint folder that `uri` means: itself, or the best (else the latest) of a run directory."""
    if storage.exists(storage.join(uri, "checkpoint.json")):
        return uri
    run = RunDir(uri)
    samples = run.best()
    if samples is None:
        raise UsageError(
            f"No checkpoint at {uri}: it is neither a checkpoint folder (with checkpoint.json) nor a run directory "
            "with a finished checkpoint under checkpoints/. Pass the --run-dir of a `focusvit pretrain`."
        )
    return run.checkpoint_uri(samples)


def is_weights_file(uri: str) -> bool:
    """Whether `uri` names a file of weights, rather than a checkpoint folder or a run directory of ours."""
    return uri.endswith((".safetensors", ".pt", ".pth", ".bin"))


def starting_weights(uri: str) -> str:
    """What a training starts from: a file of weights as it is, or the checkpoint folder. `UsageError`: not there."""
    if not is_weights_file(uri):
        return load_checkpoint(uri).uri
    if not storage.exists(uri):
        raise UsageError(
            f"There is no file {uri} to start from. Save the weights of a ViT of timm, Hugging Face or torchvision "
            "there (`safetensors.torch.save_file(model.state_dict(), FILE)`), or name another file with --init-from."
        )
    return uri


def load_checkpoint(uri: str) -> Checkpoint:
    """Read `checkpoint.json` of a checkpoint folder or run directory.

    Raises `UsageError` when there is none, `DataError` when it is damaged.
    """
    found = find_checkpoint(uri)
    try:
        values = storage.read_json(storage.join(found, "checkpoint.json"))
    except (ValueError, json.JSONDecodeError) as error:
        raise DataError(f"{found}/checkpoint.json is not readable ({error}). Take another checkpoint.") from None
    if values.get("format_version") != FORMAT_VERSION:
        raise UsageError(
            f"{found} has checkpoint format {values.get('format_version')}, this version reads {FORMAT_VERSION}. "
            "Use the version of focusvit that wrote it."
        )
    values["classes"] = tuple(values["classes"])
    return Checkpoint(uri=found, **values)


def load_weights(uri: str, name: str = "model.safetensors") -> dict[str, Tensor]:
    """The tensors of one file of a checkpoint folder, on the CPU."""
    try:
        return safetensors.torch.load(storage.read_bytes(storage.join(uri, name)))
    except (FileNotFoundError, SafetensorError) as error:
        raise UsageError(
            f"{storage.join(uri, name)} is missing or damaged ({error}). Take another checkpoint."
        ) from None


def fill(model: nn.Module, weights: dict[str, Tensor], place: str, skip: tuple[str, ...] = ()) -> None:
    """Load `weights` into `model`, completely, but for parameters whose name starts with one of `skip`.

    Raises `UsageError` that lists every name that is missing, left over or of another shape.
    """
    wanted = {k: v for k, v in model.state_dict().items() if not k.startswith(skip or ("\0",))}
    given = {k: v for k, v in weights.items() if not k.startswith(skip or ("\0",))}
    problems = [f"{k} is missing" for k in wanted if k not in given]
    problems += [f"{k} is not in this model" for k in given if k not in wanted]
    problems += [
        f"{k} is {tuple(given[k].shape)} there and {tuple(v.shape)} here"
        for k, v in wanted.items()
        if k in given and given[k].shape != v.shape
    ]
    if problems:
        raise UsageError(
            f"The checkpoint {place} does not fit the model: {'; '.join(problems[:8])}"
            f"{f' and {len(problems) - 8} more' if len(problems) > 8 else ''}. "
            "Use the model config that the checkpoint was trained with."
        )
    model.load_state_dict(given, strict=False)


def load_model(uri: str, device: torch.device | str = "cpu") -> tuple["FocusViT", Checkpoint]:
    """The model of a checkpoint (or of a run's best checkpoint), in eval mode on `device`, and its record.

    Raises `UsageError` when there is none, `DataError` when its weights are damaged or of another shape than it says.
    """
    from focusvit.model.config import FocusViTConfig
    from focusvit.model.model import FocusViT

    record = load_checkpoint(uri)
    model = FocusViT(from_json(FocusViTConfig, record.model, f"{record.uri}: model"))
    try:
        fill(model, load_weights(record.uri), record.uri)
    except UsageError as error:  # the request is fine, what lies in the folder is not
        raise DataError(str(error)) from None
    return model.to(device).eval(), record


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: dict[int, str]) -> dict[str, Tensor]:
    """The optimizer's state under readable names: 'optim.exp_avg.blocks.0.attn.qkv.weight'. `names`: id(p) -> name."""
    return {
        f"optim.{kind}.{names[id(parameter)]}": value
        for parameter, slots in optimizer.state.items()
        for kind, value in slots.items()
        if isinstance(value, Tensor)
    }


def fill_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], names: dict[int, str]) -> None:
    """The inverse of `optimizer_tensors`. Step counters go to the parameter's device too: fused kernels read them."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            slots = {}
            for key, value in tensors.items():
                if key.startswith("optim.") and key.split(".", 2)[2] == names[id(parameter)]:
                    slots[key.split(".", 2)[1]] = value.to(parameter.device)
            if slots:
                optimizer.state[parameter] = slots
