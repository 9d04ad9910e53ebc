"""Files of weights as people have them, opened without executing anything: which format by content, not by ending;
the table of tensors wherever a training program put it; the plain names of its model.
"""

import argparse
import hashlib
import logging
import pathlib
import re
import types
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from pipeline.errors import first_line
from pipeline.io import storage

log = logging.getLogger(__name__)

# Data without behaviour that training programs keep next to their weights. Everything else stays refused.
_SCALAR = np._core.multiarray.scalar  # type: ignore[attr-defined]
_ARRAY = np._core.multiarray._reconstruct  # type: ignore[attr-defined]
_HARMLESS: list[Any] = [
    argparse.Namespace, types.SimpleNamespace, pathlib.PosixPath, pathlib.PurePosixPath, np.ndarray, np.dtype,
    _SCALAR, (_SCALAR, "numpy.core.multiarray.scalar"), _ARRAY, (_ARRAY, "numpy.core.multiarray._reconstruct"),
    *{type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "?"},
]  # fmt: skip
# Averages over the training come first: they are what their authors evaluate, and what timm loads.
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "module_ema", "ema", "teacher")
_RAW = ("state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "student", "weights",
        "params", "backbone", "encoder")  # fmt: skip
_WRAPPER = re.compile(r"^((module|_orig_mod|model|backbone|net|network)\.)+")
"""what DistributedDataParallel, torch.compile and training programs put before the names of the model in them"""
_AVERAGE_PREFIX = re.compile(r"^(ema_model|model_ema|ema|teacher)\.")
_BEGINNINGS = {  # of files that are often there in place of weights
    b"version https://git-lfs": "is a pointer of Git LFS; fetch the file itself (git lfs pull)",
    b"<": "is a web page, not what it links to; download the file itself",
    b"\x89HDF": "is an HDF5 file (Keras, TensorFlow); export the model to PyTorch first",
    b"\x1f\x8b": "is compressed; unpack it first (gunzip)",
}


def weights_hash(model: nn.Module) -> str:
    """sha256 over names, types, shapes and bytes of all tensors: two models with one hash give the same features."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, a folder of them (a model in several files), or a file of torch.save (.pth,
    .pt, .bin, .ckpt, .pth.tar); path or URI. Nothing in it is executed.

    Tables inside of a training program's file are found; where it holds averaged weights (EMA, a teacher) next to the
    raw ones, the averaged are taken, and that is said.

    Raises:
        ValueError: the place holds no table of tensors, is damaged, or holds an object that would have to be executed.
    """
    place = str(path)
    if storage.is_folder(place):
        names = sorted(name for name in storage.list_names(place) if name.endswith(".safetensors"))
        if not names:
            raise ValueError(f"the folder {place} holds no .safetensors file; name a file of weights")
        return {key: value for name in names for key, value in read_weights(storage.join(place, name)).items()}
    content = _opened(place, storage.read_bytes(place))
    tensors, key = _table(content)
    if not tensors:
        keys = f" with {', '.join(map(str, list(content)[:6]))}" if isinstance(content, Mapping) else ""
        raise ValueError(
            f"{place} does not hold a table of tensors ({type(content).__name__}{keys}); save `model.state_dict()`, or "
            "use safetensors"
        )
    weights, prefix = _plain_names(tensors)
    if key or prefix:
        log.warning("%s: '%s' is taken, the averaged weights, not the raw ones", place, key or prefix)
    return weights


def _opened(place: str, data: bytes) -> Any:
    for beginning, words in _BEGINNINGS.items():
        if data.startswith(beginning):
            raise ValueError(f"{place} {words}")
    try:
        if _is_safetensors(data) or (place.endswith(".safetensors") and not data.startswith((b"PK", b"\x80"))):
            return load(data)
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found:
            raise ValueError(
                f"{place} holds an object of {found[1]}, and reading it could run a program that came with the file. "
                "Where it was made, save the tensors alone: torch.save(model.state_dict(), FILE)"
            ) from None
        raise _unreadable(place, "no file of torch.save or safetensors") from None
    except (SafetensorError, RuntimeError, EOFError, KeyError, ValueError, TypeError, AttributeError) as error:
        # A zip of numpy arrays is a zip as torch's is.
        reason = "a zip without torch's parts; is it an .npz?" if b".npy" in data[:200] else first_line(error)
        raise _unreadable(place, reason) from None


def _is_safetensors(data: bytes) -> bool:
    """By its header: a length of eight bytes, then JSON of that length."""
    return data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data) - 8


def _unreadable(place: str, reason: str) -> ValueError:
    return ValueError(f"{place} cannot be read as weights ({reason}); copy it again, or save it anew")


def _table(content: Any, depth: int = 4) -> tuple[dict[str, Tensor], str]:
    """The table of tensors in `content`, or in one of the keys under which programs keep it, and which key that was
    where it is an average beside raw weights. An empty table where there is none."""
    if not isinstance(content, Mapping) or not depth:
        return {}, ""
    for key in (*_AVERAGED, *_RAW):
        found, chosen = _table(content.get(key), depth - 1)
        if found:
            is_choice = key in _AVERAGED and any(isinstance(content.get(other), Mapping) for other in _RAW)
            return found, key if is_choice else chosen
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    others = [value for value in content.values() if not isinstance(value, (Tensor, int, float, str, type(None)))]
    return ({}, "") if others else (tensors, "")


def _plain_names(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Names as the model itself has them; of two models in one table the averaged one, with the prefix it had."""
    averaged = [name for name in tensors if _AVERAGE_PREFIX.match(name)]
    prefix = averaged[0].split(".")[0] if averaged else ""
    chosen = {_AVERAGE_PREFIX.sub("", name): tensors[name] for name in averaged} or tensors
    return {_WRAPPER.sub("", name): value for name, value in chosen.items()}, prefix
