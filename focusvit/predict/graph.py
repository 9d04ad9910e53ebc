"""A model as a graph without Python: torch.export, ONNX, and ONNX in 8 bits. Shapes are fixed; no scatter inside.

`regions` and its neighbours count by products of one-hot masks while they are exported, so the graph takes images and
integer maps like the model itself, and any runtime can run it in any order.
"""

import contextlib
import copy
import logging
import re
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import UsageError

TOLERANCE = 1e-4
"""Largest difference of a logit between a graph and eager torch, in units of the largest logit where that exceeds 1."""

_BLOCKS = re.compile(r"\.(blocks|reads|layers?)\.")
"""what rows of blocks are called, here and in other libraries"""
_NEEDS = "needs onnx and onnxscript, which are not installed: pip install 'focusvit[export]', or export to a .pt2 file."


class FixedBudget(nn.Module):
    """A model at one token budget: what is exported is a function of images and maps alone."""

    def __init__(self, model: nn.Module, tokens: int | None) -> None:
        super().__init__()
        self.model, self.tokens = model, tokens

    def forward(self, images: Tensor, maps: Tensor | None = None) -> Tensor:
        return self.model(images, maps, self.tokens)


def export_program(model: nn.Module, *inputs: Tensor) -> torch.export.ExportedProgram:
    """The model in eval mode, in which it stays, as one graph for inputs of exactly these shapes."""
    with torch.no_grad(), _quiet():
        return torch.export.export(model.eval(), inputs, strict=False)


def to_onnx(program: torch.export.ExportedProgram) -> Any:
    """The program as an onnx.ModelProto with the inputs' own names. Raises UsageError without the packages."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise UsageError(f"export to ONNX {_NEEDS}") from None
    with _quiet():
        done = torch.onnx.export(program, dynamo=True, verbose=False, output_names=["logits"])
    assert done is not None
    return done.model_proto


def to_int8(model: Any) -> Any:
    """A copy of an onnx.ModelProto from `to_onnx` whose linear layers in blocks and reads run in 8 bits.

    Weights are rounded once, per output channel. Activations are rounded at each call, by the range they then have
    ("dynamic"), so no images are needed to calibrate and none can be too unlike them. All else stays in float32: stem,
    head, norms, softmax, position, and the counting of regions, which must be exact.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = copy.deepcopy(model)
    del model.graph.value_info[:]  # the quantizer turns weights about and trips over the shapes that were noted before
    chosen = [node.name for node in model.graph.node if _is_block_linear(node)]
    with tempfile.TemporaryDirectory() as folder, _quiet():
        out = Path(folder) / "int8.onnx"
        quantize_dynamic(model, out, nodes_to_quantize=chosen, per_channel=True, weight_type=QuantType.QInt8)
        return onnx.load(out)


def _is_block_linear(node: Any) -> bool:
    """Whether an ONNX node is the product of an nn.Linear inside a block or a read, by the exporter's notes."""
    notes = {entry.key: entry.value for entry in node.metadata_props}
    scope = notes.get("pkg.torch.onnx.name_scopes", "")
    linear = "torch.nn.modules.linear.Linear" in notes.get("pkg.torch.onnx.class_hierarchy", "")
    return node.op_type in ("MatMul", "Gemm") and linear and bool(_BLOCKS.search(scope))


def difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """Largest difference of a logit, in units of the largest logit where that exceeds 1."""
    return float(np.abs(found - wanted).max() / max(1.0, np.abs(wanted).max()))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' notes about operators of libraries that we do not use, and about their own future."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.disable(before)
