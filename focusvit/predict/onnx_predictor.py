"""From the bytes of an image file to class probabilities, by an exported ONNX model. Loads neither torch nor Ray.

What the model says about itself is one JSON text inside the file, so that the file alone is enough to predict.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from focusvit.data.augment import View
from focusvit.runs.config_json import from_json, to_json
from focusvit.runs.sealed_json import parse_object
from pipeline.errors import DataError, UsageError, first_line
from pipeline.io import storage

from .view import Prediction, ViewConfig

FORMAT_VERSION = 1
KEY = "focusvit"
"""the name of the text in an ONNX file's metadata and in a torch.export archive"""


@dataclass(frozen=True, kw_only=True)
class ExportRecord:
    """An exported model: uint8 images (B, 3, H, W) and uint8 maps (B, Hm, Wm) -> float32 logits (B, C)."""

    classes: tuple[str, ...]
    batch_size: int
    """B; shapes are fixed"""
    precision: str
    """fp32, or int8: weights in 8 bits, activations in 8 bits where they enter a matrix product"""
    view: ViewConfig
    """how an image becomes the inputs: sizes, crop, tokens, superpixel settings"""
    mean: tuple[float, float, float]
    """RGB mean in 0..1 units, taken off inside the graph; given for whoever wants to know"""
    std: tuple[float, float, float]
    checkpoint: str = ""
    """where the weights came from"""
    samples_seen: int = 0
    versions: dict[str, str] = field(default_factory=dict)

    def to_text(self) -> str:
        return json.dumps({"format_version": FORMAT_VERSION, **to_json(self)}, sort_keys=True)


def read_record(text: str | None, place: str) -> ExportRecord:
    """The record in an exported file. Raises DataError for a file that is not ours or of another format version."""
    if text is None:
        raise DataError(f"{place} is no model that `focusvit export` wrote: its metadata has no entry '{KEY}'.")
    try:
        values = parse_object(text, f"{place}: its record")
        found = values.pop("format_version", None)
        if found != FORMAT_VERSION:
            raise DataError(
                f"{place} has export format {found}; this version reads {FORMAT_VERSION}. Export the checkpoint again "
                "with this version of focusvit, or predict with the version that wrote the file."
            )
        return from_json(ExportRecord, values, place)
    except UsageError as error:
        raise DataError(f"{place}: its record cannot be read ({error}). Export the checkpoint again.") from None


def inference_session(model: bytes, place: str, threads: int = 0) -> Any:
    """An onnxruntime session on the CPU; `threads` 0 = all cores. Raises DataError for bytes that are no ONNX model."""
    try:
        import onnxruntime
    except ImportError:
        raise UsageError(
            "running an ONNX file needs onnxruntime, which is not installed: pip install 'focusvit[export]'."
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors; a bad file is reported once, below
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own kinds share no other base
        raise DataError(
            f"{place} cannot be loaded by onnxruntime: {first_line(error)}. Export the checkpoint again."
        ) from None


def model_inputs(views: Sequence[View]) -> list[np.ndarray]:
    """Views as what a model takes: uint8 images (n, 3, H, W) and, where the views have one, maps (n, Hm, Wm)."""
    images = np.ascontiguousarray(np.stack([view.image for view in views]).transpose(0, 3, 1, 2))
    maps = [view.map for view in views if view.map is not None]
    return [images, np.stack(maps)] if maps else [images]


def in_batches(run: Callable[..., np.ndarray], given: Sequence[np.ndarray], size: int) -> np.ndarray:
    """What `run` gives for the rows of `given`, exactly `size` rows a call: the last batch is filled up with its last
    row, whose answers are dropped. A file's batch size is fixed.
    """
    out = []
    for start in range(0, len(given[0]), size):
        parts = [rows[start : start + size] for rows in given]
        num = len(parts[0])
        if num < size:
            parts = [np.concatenate([rows, np.repeat(rows[-1:], size - num, 0)]) for rows in parts]
        out.append(run(*parts)[:num])
    return np.concatenate(out)


class OnnxPredictor:
    """An exported model that takes images; the twin of `predictor.Predictor`."""

    def __init__(self, place: str) -> None:
        if not storage.exists(place):
            raise UsageError(f"the ONNX file {place} does not exist. Write one with `focusvit export`.")
        self.name = place
        self.session = inference_session(storage.read_bytes(place), place)
        self.record = read_record(self.session.get_modelmeta().custom_metadata_map.get(KEY), place)
        self.classes, self.view_config = self.record.classes, self.record.view
        self.tokens, self.batch_size = self.view_config.tokens, self.record.batch_size
        self._inputs = [node.name for node in self.session.get_inputs()]

    def view(self, data: bytes) -> View:
        """What the model sees of an encoded image. Raises BadImage."""
        return self.view_config.view(data)

    def logits(self, *inputs: np.ndarray) -> np.ndarray:
        """uint8 images (n, 3, H, W) and, where the model takes them, maps (n, Hm, Wm) -> float32 (n, C), any n."""
        return in_batches(
            lambda *parts: self.session.run(None, dict(zip(self._inputs, parts)))[0], inputs, self.batch_size
        )

    def predict(self, views: Sequence[View]) -> list[Prediction]:
        logits = self.logits(*model_inputs(views))
        shares = np.exp(logits - logits.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        return [Prediction(shares=share, view=view) for share, view in zip(shares, views)]
