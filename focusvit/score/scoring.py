"""A model over batches, counted: every sample once."""

from collections.abc import Callable, Iterable

import torch
from torch import nn

from focusvit.data.batch import Batch
from focusvit.precision import Precision, computing
from pipeline.errors import UsageError

from .tally import Tally


@torch.inference_mode()
def tally(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    num_samples: int,
    num_classes: int,
    device: torch.device | str = "cpu",
    precision: Precision = "fp32",
    keep_logits: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> Tally:
    """Run `model` over `batches` in evaluation mode (its mode is put back) and count.

    `keep_logits` maps logits (B, model classes) to (B, num_classes) when the split has fewer classes than the model.
    When memory runs out, this batch and the following are worked on in halves.
    """
    result = Tally(num_classes=num_classes, num_samples=num_samples)
    at_once: int | None = None
    was_training = model.training
    model.eval()
    try:
        for batch in batches:
            here = batch.to(device, non_blocking=True)
            with computing(precision, device):
                logits, at_once = _logits(model, here, at_once)
            if keep_logits is not None:
                logits = keep_logits(logits)
            result.add(logits, here.class_ids, here.sample_ids)
    finally:
        model.train(was_training)
    return result


def _logits(model: nn.Module, batch: Batch, at_once: int | None) -> tuple[torch.Tensor, int | None]:
    """Logits (B, C) of a batch, and how many images of it were worked on at once (None: all of them)."""
    while True:
        try:
            return torch.cat([model(p.images, p.maps, p.num_tokens) for p in batch.split(at_once)]), at_once
        except RuntimeError as error:
            size = min(at_once or len(batch), len(batch))
            if not is_out_of_memory(error):
                raise
            if size == 1:
                raise UsageError(
                    f"memory does not suffice for one image ({str(error).splitlines()[0][:200]}). Use a smaller "
                    "--tokens, or another --device."
                ) from None
            at_once = (size + 1) // 2
        if batch.images.is_cuda:
            torch.cuda.empty_cache()


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch says that memory ran out; on a CPU the allocator says so in words."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
