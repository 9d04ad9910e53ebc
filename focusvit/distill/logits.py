"""Learning from a teacher: its logits on the same view join the loss."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from focusvit.data.batch import Batch
from pipeline.errors import UsageError

from .config import DistillConfig

if TYPE_CHECKING:
    from focusvit.drop_in.host_model import Model


class Teacher:
    """The teacher's logits for a batch; it sees the pixels and maps that the student sees."""

    def __init__(
        self, config: DistillConfig, classes: tuple[str, ...] | None, image_px: int, device: torch.device
    ) -> None:
        """`classes`: those of the data set, which it must know; None = the training has checked them."""
        from focusvit.runs.checkpoint import load_model

        assert config.teacher is not None
        self._model: Model
        self._model, record = load_model(config.teacher, device)
        if classes is not None and record.classes != classes:
            raise UsageError(f"the teacher {record.uri} knows other classes than the data set. Take one trained on it.")
        if self._model.config.image_size != (image_px, image_px):
            size = self._model.config.image_px
            raise UsageError(
                f"the teacher {record.uri} takes {size} px images, the student {image_px} px. Make them agree."
            )

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> Tensor:
        config = self._model.config
        maps = batch.maps if config.needs_maps else None
        return self._model(batch.images, maps, batch.num_tokens if maps is not None else None).float().clone()


def teacher_losses(logits: Tensor, teacher: Tensor, config: DistillConfig) -> Tensor:
    """The loss of each sample against the teacher, float32 (B,): cross-entropy with its choice, or the KL divergence
    of the softened distributions times temperature squared (Hinton et al. 2015), which keeps the gradient's size."""
    if config.hard:
        return functional.cross_entropy(logits.float(), teacher.argmax(1), reduction="none")
    t = config.temperature
    student = functional.log_softmax(logits.float() / t, dim=1)
    wanted = functional.log_softmax(teacher.float() / t, dim=1)
    return functional.kl_div(student, wanted, log_target=True, reduction="none").sum(1) * t**2


def distilled(losses: Tensor, logits: Tensor, teacher: Tensor, config: DistillConfig) -> Tensor:
    """The loss of each sample (B,) with the teacher's share in it; `losses` are those against the labels."""
    return (1 - config.weight) * losses + config.weight * teacher_losses(logits, teacher, config)
