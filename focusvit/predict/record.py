"""What an exported model says about itself: one JSON text inside the file, so that the file alone is enough to predict.

Knows no torch: whoever runs the file reads it.
"""

import json
from dataclasses import dataclass, field

from focusvit.runs.config_json import from_json, to_json
from focusvit.runs.sealed_json import parse_object
from pipeline.errors import DataError, UsageError

from .view import ViewConfig

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
