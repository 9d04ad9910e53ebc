"""Checkpoints: safetensors and JSON in one folder, complete if and only if `checkpoint.json` is there.

model.safetensors   the weights that the validation scored (the moving average where one is kept)
confusion.npy       the counts behind the scores, added with them once they are known
state.safetensors   what only a resume needs: optimizer moments, and the raw weights beside a moving average
checkpoint.json     configs, classes, data identity, samples seen, metrics, versions; written last. It holds the sha256
                    of both files and of itself, and every reader checks them: damage is said by name, and where there
                    is another checkpoint of the run, a reader goes on with that one
"""

import dataclasses
import hashlib
import io
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from pipeline.errors import DataError, UsageError
from pipeline.io import storage

from .checkpoint_record import (
    CONFUSION,
    MODEL,
    RECORD,
    STATE,
    Checkpoint,
    first_sound,
    is_host_folder,
    put_record,
    record_at,
)
from .model_record import host_checkpoint, model_config, patched_record
from .run_dir import RunDir

if TYPE_CHECKING:
    from focusvit.drop_in.host_model import Model
    from focusvit.model.model import FocusViT

log = logging.getLogger(__name__)


def save_checkpoint(
    uri: str, record: Checkpoint, weights: dict[str, Tensor], state: dict[str, Tensor] | None = None
) -> None:
    """Write one checkpoint folder; `checkpoint.json` goes last and makes it complete."""
    storage.remove(storage.join(uri, RECORD))  # what is written over is none meanwhile
    files = {}
    for name, tensors in ((MODEL, weights), (STATE, state or {})):
        data = safetensors.torch.save({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
        files[name] = hashlib.sha256(data).hexdigest()
        storage.put(storage.join(uri, name), data)
    put_record(dataclasses.replace(record, uri=uri, files=files))


def add_scores(uri: str, metrics: dict[str, float], confusion: np.ndarray | None) -> None:
    """Add the scores of its weights to a checkpoint that was saved without them. `confusion`: int64 (C, C); None of a
    model without classes."""
    buffer, record = io.BytesIO(), record_at(uri)
    if confusion is None:
        put_record(dataclasses.replace(record, metrics=metrics))
        return
    np.save(buffer, confusion)
    storage.put(storage.join(uri, CONFUSION), buffer.getvalue())
    files = {**record.files, CONFUSION: hashlib.sha256(buffer.getvalue()).hexdigest()}
    put_record(dataclasses.replace(record, metrics=metrics, files=files))


def read_confusion(record: Checkpoint) -> np.ndarray | None:
    """int64 (C, C): true class, predicted class, of the scores in the record; None without. Raises `DataError`."""
    if CONFUSION not in record.files:
        return None
    data = _checked(storage.join(record.uri, CONFUSION), record.files[CONFUSION])
    return np.load(io.BytesIO(data), allow_pickle=False)


def load_weights(uri: str, name: str = MODEL, sha256: str | None = None) -> dict[str, Tensor]:
    """The tensors of one file of a folder, on the CPU. `DataError`: missing, damaged, or not of this `sha256`."""
    place = storage.join(uri, name)
    data = _checked(place, sha256)
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise DataError(f"{place} is damaged ({error}).") from None


def _checked(place: str, sha256: str | None) -> bytes:
    """The bytes of a file. Raises `DataError`: missing, or of another hash."""
    try:
        data = storage.read_bytes(place)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{place} is missing.") from None
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise DataError(f"{place} is not what was written: its sha256 is another than the one in {RECORD}.")
    return data


def read_tensors(record: Checkpoint, name: str = MODEL) -> dict[str, Tensor]:
    """The tensors of one file of a checkpoint, checked against its record; halves as float32. Raises `DataError`."""
    found = load_weights(record.uri, name, record.files.get(name))
    return {name: value.float() if value.dtype == torch.float16 else value for name, value in found.items()}


def newest_sound(run: RunDir) -> int | None:
    """Samples seen of the newest checkpoint of `run` whose files are all as they were written; None without one.

    For the one who trains: newer ones that are damaged are said by name and are no checkpoints from then on (their
    record is renamed to damaged.json), so that nobody takes them and none of them counts as one of the two kept.
    """
    for samples in reversed(run.checkpoints()):
        uri = run.checkpoint_uri(samples)
        try:
            record = record_at(uri)
            for name in (MODEL, STATE):
                read_tensors(record, name)
        except DataError as error:
            log.warning("%s The run goes on from an older checkpoint.", error)
            storage.put(storage.join(uri, "damaged.json"), storage.read_bytes(storage.join(uri, RECORD)))
            storage.remove(storage.join(uri, RECORD))
            continue
        return samples
    return None


def is_weights_file(uri: str) -> bool:
    """Whether `uri` names a file of weights, rather than a checkpoint folder or a run directory of ours."""
    return uri.endswith((".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".pth.tar", ".pt.tar"))


def starting_weights(uri: str) -> str:
    """What a training starts from: a file of weights as it is, or the checkpoint folder. `UsageError`: not there."""
    if not is_weights_file(uri):
        return load_checkpoint(uri).uri  # proven now, so that a mistake is said before anything starts
    if not storage.exists(uri):
        raise UsageError(
            f"There is no file {uri} to start from. Save the weights of a ViT of timm, Hugging Face or torchvision "
            "there (`safetensors.torch.save_file(model.state_dict(), FILE)`), or name another file with --init-from."
        )
    return uri


def read_checkpoint(uri: str, patch: Sequence[str] = ()) -> tuple[Checkpoint, dict[str, Tensor]]:
    """Record and weights of a checkpoint folder, or of a run's best one, both checked against their hashes; or of a
    host, a folder as Hugging Face and timm save a vision transformer, which has no head and no classes here.

    `patch`: what `--patch` says of a host. Raises `UsageError` when there is none, or no host to patch; `DataError`
    when it is damaged.
    """
    return first_sound(uri, lambda place: _read(place, patch))


def _read(place: str, patch: Sequence[str]) -> tuple[Checkpoint, dict[str, Tensor]]:
    """Of one folder."""
    if is_host_folder(place):
        record, weights = host_checkpoint(place)
    else:
        record = record_at(place)
        weights = read_tensors(record)
    return patched_record(record, patch), weights


def load_checkpoint(uri: str, patch: Sequence[str] = ()) -> Checkpoint:
    """The record of the checkpoint that `load_model` would take. See `read_checkpoint` for what it raises."""
    return read_checkpoint(uri, patch)[0]


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


def load_model(
    uri: str, device: torch.device | str = "cpu", patch: Sequence[str] = (), kind: "type[FocusViT] | None" = None
) -> tuple["Model", Checkpoint]:
    """The model of a checkpoint (or of a run's best checkpoint, or a host), in eval mode on `device`, and its record.

    `patch` as for `read_checkpoint`. `kind`: the class to make of a FocusViT, by default that class itself.

    Raises `UsageError` when there is none, or its library is missing; `DataError` when it is damaged, of another shape
    than it says, or holds weights that are no numbers.
    """
    model, record = first_sound(uri, lambda place: _built(place, patch, kind))
    return model.to(device).eval(), record


def _built(place: str, patch: Sequence[str], kind: "type[FocusViT] | None") -> tuple["Model", Checkpoint]:
    from focusvit.drop_in.host_config import HostConfig
    from focusvit.drop_in.host_model import build_model
    from focusvit.drop_in.libraries import library

    record, weights = _read(place, patch)
    if "library" in record.model:
        library(record.model["library"])
    try:
        config = model_config(record)
        if kind is not None and isinstance(config, HostConfig):
            raise UsageError(f"{place} is a {config.architecture} of {config.library}, not a FocusViT.")
        model = build_model(config) if kind is None or isinstance(config, HostConfig) else kind(config)
        fill(model, weights, place)
    except (UsageError, TypeError, ValueError) as error:  # the request is fine, what lies in the folder is not
        raise DataError(str(error)) from None
    check_finite(weights, place)
    return model, record


def check_finite(weights: dict[str, Tensor], place: str) -> None:
    """Raise `DataError` when a weight is NaN or infinite: whatever such a model answers means nothing."""
    wrong = [name for name, value in weights.items() if value.is_floating_point() and not value.isfinite().all()]
    if wrong:
        raise DataError(
            f"{place} holds {len(wrong)} tensors with values that are no finite numbers (the first is {wrong[0]}): the "
            "training diverged."
        )
