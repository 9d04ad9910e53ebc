"""One checkpoint scored with superpixels of different origin, and as exported files: is there a skew between them?

shards      the maps that `focusvit preprocess` stored: what the model was trained and validated on
fast-slic   made now from the stored image, by the path of `focusvit predict`
torch       made now on the device from the view that the model sees, by `focusvit.segment.slic`
an ONNX file  the path of `focusvit predict --onnx`: fast-slic, then onnxruntime
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from focusvit.data.batch import Batch
from focusvit.data.loader import EvalLoader
from focusvit.predict.compatible import data_config
from focusvit.predict.onnx_predictor import OnnxPredictor, model_inputs
from focusvit.predict.predictor import view_config
from focusvit.predict.view import ViewConfig
from focusvit.runs.checkpoint import Checkpoint
from focusvit.segment.slic import slic
from pipeline.errors import DataError, UsageError
from pipeline.image.image import BadImage
from pipeline.io import storage
from pipeline.shards.dataset import Split
from pipeline.shards.proof import read_proven


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One row of a comparison: a function from (images, maps, tokens) to logits, and the batches it is given."""

    name: str
    tokens: int | None
    model: nn.Module
    batches: Iterable[Batch]


def scored(
    name: str,
    model: Any,
    record: Checkpoint,
    split: Split,
    tokens: int | None,
    *,
    batch_size: int,
    loader_workers: int,
    pin_memory: bool = False,
) -> Scored:
    """The row of a segmenter of SEGMENTERS at a token budget, or of an exported file, which has its own."""
    data = data_config(record, loader_workers)

    def from_shards(with_maps: bool) -> Iterable[Batch]:
        return EvalLoader(split, data, batch_size=batch_size, tokens=tokens, with_maps=with_maps, pin_memory=pin_memory)

    if name == "shards":
        needed = model.config.needs_maps
        return Scored(name=name if needed else "none", tokens=tokens, model=model, batches=from_shards(needed))
    if name == "torch":
        assert tokens is not None  # only a model that takes superpixels comes here
        device, reduce = next(model.parameters()).device, data.image_px // data.map_side
        there = (batch.to(device, non_blocking=True) for batch in from_shards(False))
        segmented = (replace(b, maps=slic(b.images, tokens, reduce=reduce), num_tokens=tokens) for b in there)
        return Scored(name=name, tokens=tokens, model=model, batches=segmented)
    if name == "fast-slic":
        batches = file_batches(split, view_config(record, tokens), batch_size)
        return Scored(name=name, tokens=tokens, model=model, batches=batches)
    predictor = OnnxPredictor(storage.resolve(name))
    if predictor.classes != record.classes:
        raise UsageError(
            f"{name} knows {len(predictor.classes)} classes, {record.uri} knows {len(record.classes)}, and the lists "
            "differ: it is not an export of this checkpoint. Name the checkpoint that it was made of."
        )
    return Scored(
        name=storage.name_of(name),
        tokens=predictor.tokens,
        model=_Exported(predictor),
        batches=file_batches(split, predictor.view_config, batch_size),
    )


def file_batches(split: Split, view: ViewConfig, batch_size: int) -> Iterator[Batch]:
    """The samples of a split as if their images came as files: segmented now, no stored map is read."""
    for start in range(0, split.num_samples, batch_size):
        ids = np.arange(start, min(start + batch_size, split.num_samples))
        samples = [read_proven(split, int(i)) for i in ids]
        try:
            inputs = model_inputs([view.view(sample.image) for sample in samples])
        except BadImage as error:
            raise DataError(
                f"one of the samples {start}..{ids[-1]} of split '{split.name}' {error}, and evaluation counts every "
                "sample. Run `focusvit verify --repair` on the data set."
            ) from None
        tensors = [torch.from_numpy(x) for x in inputs]
        yield Batch(
            images=tensors[0],
            maps=tensors[1] if len(tensors) > 1 else None,
            num_tokens=view.tokens,
            class_ids=torch.tensor([int(sample.class_id or 0) for sample in samples]),
            sample_ids=torch.from_numpy(ids),
        )


class _Exported(nn.Module):
    """An exported file in the place of a model."""

    def __init__(self, predictor: OnnxPredictor) -> None:
        super().__init__()
        self.predictor = predictor

    def forward(self, images: Tensor, maps: Tensor | None, tokens: int | None) -> Tensor:
        # What came from the split's samples goes on as arrays: the file decides tokens and batch size itself.
        given = [x.cpu().numpy() for x in (images, maps) if x is not None]
        return torch.from_numpy(self.predictor.logits(*given)).to(images.device)
