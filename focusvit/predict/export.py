"""`focusvit export`: a checkpoint as one file that runs without torch, compared with the checkpoint before writing."""

import io
import sys
from collections.abc import Callable
from importlib.metadata import version

import cv2
import numpy as np
import torch
from torch import nn

from focusvit import __version__
from focusvit.model.config import FocusViTConfig
from focusvit.options import ExportConfig
from pipeline.commandline import parse
from pipeline.errors import DataError, UsageError
from pipeline.image.image import BadImage
from pipeline.io import storage
from pipeline.sources.embedded import draw_shape

from .graph import TOLERANCE, FixedBudget, difference, export_program, to_int8, to_onnx
from .onnx_predictor import KEY, ExportRecord, in_batches, inference_session, model_inputs
from .places import image_places
from .predictor import Predictor
from .view import ViewConfig


def main(argv: list[str]) -> int:
    config = parse(ExportConfig, argv, prog="focusvit export")
    predictor = Predictor.of(config.checkpoint, tokens=config.tokens or None)
    model, out = predictor.model, storage.resolve(config.out)
    if config.tokens and model.config.tokens is None:
        raise UsageError(f"--tokens {config.tokens}: {predictor.name} is a plain ViT, its number of tokens is fixed.")
    if isinstance(model.config, FocusViTConfig) and model.config.then:
        raise UsageError(
            f"{predictor.name} has further levels (then={model.config.then}), whose merging no graph can hold: export "
            f"a model of one level."
        )
    record = export_record(predictor, config.batch_size, "int8" if config.int8 else "fp32")
    sys.stdout.write(
        f"export {predictor.name} to {out}: {record.precision}, batch {record.batch_size}, "
        f"{record.view.tokens or 'no'} superpixels, {len(record.classes)} classes\n"
    )
    inputs, what = check_inputs(config, record.view)
    fixed = FixedBudget(model, predictor.tokens).eval()
    wanted = in_batches(_torch_call(fixed), inputs, record.batch_size)
    program = export_program(
        fixed, *(torch.from_numpy(np.resize(x, (record.batch_size, *x.shape[1:]))) for x in inputs)
    )
    data, call = _archive(program, record) if out.endswith(".pt2") else _onnx(program, record, out)
    found = in_batches(call, inputs, record.batch_size)
    off, agree = difference(found, wanted), float((found.argmax(1) == wanted.argmax(1)).mean())
    if record.precision == "fp32" and off > TOLERANCE:
        raise DataError(
            f"the exported graph differs from {predictor.name} by {off:.1e} of the largest logit on {what}, more than "
            f"{TOLERANCE}; nothing was written. Please report this with the checkpoint's model config."
        )
    storage.put(out, data)
    sys.stdout.write(
        f"wrote {out}: {len(data) / 2**20:.1f} MiB; on {what} the largest difference of a logit is {off:.1e}, "
        f"the best class is the same for {agree:.1%}\n"
    )
    return 0


Call = Callable[..., np.ndarray]


def _torch_call(module: nn.Module) -> Call:
    def call(*parts: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return module(*map(torch.from_numpy, parts)).numpy()

    return call


def _archive(program: torch.export.ExportedProgram, record: ExportRecord) -> tuple[bytes, Call]:
    """A torch.export archive, and how to run it."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={KEY: record.to_text()})
    buffer.seek(0)
    return buffer.getvalue(), _torch_call(torch.export.load(buffer).module())


def _onnx(program: torch.export.ExportedProgram, record: ExportRecord, place: str) -> tuple[bytes, Call]:
    """An ONNX file with its record, and how to run it."""
    data = onnx_bytes(program, record)
    session = inference_session(data, place)
    names = [node.name for node in session.get_inputs()]
    return data, lambda *parts: session.run(None, dict(zip(names, parts)))[0]


def onnx_bytes(program: torch.export.ExportedProgram, record: ExportRecord) -> bytes:
    """The program as an ONNX file, in the record's precision, with the record inside."""
    model = to_onnx(program)
    if record.precision == "int8":
        model = to_int8(model)
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, record.to_text()
    return model.SerializeToString()


def export_record(predictor: Predictor, batch_size: int, precision: str) -> ExportRecord:
    """What the file will say about itself."""
    config = predictor.model.config
    return ExportRecord(
        classes=predictor.classes,
        batch_size=batch_size,
        precision=precision,
        view=predictor.view_config,
        mean=config.mean,
        std=config.std,
        checkpoint=predictor.name,
        samples_seen=predictor.record.samples_seen,
        versions={"focusvit": __version__, "torch": version("torch")},
    )


def check_inputs(config: ExportConfig, view: ViewConfig) -> tuple[list[np.ndarray], str]:
    """uint8 images (n, 3, H, W) and, where the model takes them, maps (n, Hm, Wm); and what they are."""
    if config.images:
        views = []
        for place in image_places(config.images)[: config.num_images]:
            try:
                views.append(view.view(storage.read_bytes(place.uri)))
            except (BadImage, OSError) as error:
                sys.stderr.write(f"bad image: {place.uri} {error}\n")
        if not views:
            raise DataError("none of --images can be read; leave the option out to compare on drawn scenes.")
        what = f"{len(views)} images"
    else:
        drawn = [draw_shape(np.random.default_rng(i), i % 8, max(64, view.image_px))[0] for i in range(16)]
        views = [view.view(cv2.imencode(".png", np.ascontiguousarray(rgb[..., ::-1]))[1].tobytes()) for rgb in drawn]
        what = f"{len(views)} drawn scenes"
    return model_inputs(views), what
