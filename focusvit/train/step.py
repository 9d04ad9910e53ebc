"""One optimizer step over this rank's slice of a global batch. Imports torch and numpy only."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from focusvit.data.batch import Batch
from focusvit.distill.config import DistillConfig
from focusvit.distill.features import FeatureTargets, feature_losses
from focusvit.distill.logits import distilled

from .guard import Guard


@dataclass
class StepSums:
    """What one step adds to the running sums, all on the device: nothing here waits for the GPU."""

    loss: Tensor
    """sum over samples of the training loss"""
    correct: Tensor
    """samples whose largest logit is their (first) class"""
    grad_norm: Tensor
    """norm of the whole gradient before clipping"""


def sample_losses(logits: Tensor, batch: Batch, label_smoothing: float, loss: str = "softmax") -> Tensor:
    """The loss of each sample, float32 (B,). Mixed samples have two classes, weighted by their share.

    `softmax` is cross-entropy; `bce` is the sum over classes of binary cross-entropy (DeiT III).
    """
    logits = logits.float()
    if loss == "softmax":
        first = functional.cross_entropy(logits, batch.class_ids, reduction="none", label_smoothing=label_smoothing)
        if batch.mix_ids is None or batch.mix_share is None:
            return first
        second = functional.cross_entropy(logits, batch.mix_ids, reduction="none", label_smoothing=label_smoothing)
        return batch.mix_share * first + (1 - batch.mix_share) * second
    targets = torch.zeros_like(logits)
    targets.scatter_(1, batch.class_ids[:, None], 1.0)
    if batch.mix_ids is not None and batch.mix_share is not None:
        targets *= batch.mix_share[:, None]
        targets.scatter_add_(1, batch.mix_ids[:, None], 1 - batch.mix_share[:, None])
    targets = targets * (1 - label_smoothing) + label_smoothing / logits.shape[1]
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1)


@dataclass(frozen=True, kw_only=True)
class StepOptions:
    """What a step needs to know beside weights and batch: the same for every step of a training."""

    global_batch: int
    """samples of one step over all ranks"""
    world_size: int = 1
    micro_batch: int | None = None
    """most samples per forward; None = this rank's whole slice"""
    label_smoothing: float = 0.0
    loss: str = "softmax"
    """softmax or bce, as in `sample_losses`"""
    clip_norm: float = 0.0
    """largest norm of the whole gradient; 0 = no clipping"""
    bf16: bool = False
    guard: Guard | None = None
    """may skip the update"""
    before_update: Callable[[], None] | None = None
    """called when the gradient is queued and the weights have not moved"""
    teacher: Callable[[Batch], Tensor] | None = None
    features: FeatureTargets | None = None
    """targets of a label-free training, whose model is a `Student`"""
    distill: DistillConfig = field(default_factory=DistillConfig)


def losses_of(model: nn.Module, part: Batch, options: StepOptions) -> tuple[Tensor, Tensor]:
    """Logits (B, C) of a micro-batch and the loss of each sample, float32 (B,), with the teacher's share in it. Of a
    label-free training the outputs (B, 2, D) instead of logits."""
    with torch.autocast(part.images.device.type, torch.bfloat16, enabled=options.bf16):
        logits = model(part.images, part.maps, part.num_tokens)
        taught = None if options.teacher is None else options.teacher(part)  # as fast as the student, in its precision
    if options.features is not None:
        outputs, regions = logits
        return outputs, feature_losses(outputs, regions, options.features(part), options.distill.regions)
    losses = sample_losses(logits, part, options.label_smoothing, options.loss)
    if taught is not None:
        losses = distilled(losses, logits, taught, options.distill)
    return logits, losses


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, options: StepOptions) -> StepSums:
    """Forward, backward and one optimizer step on `batch`, which lies on the model's device.

    The gradient is that of the mean loss over the *global* batch: each rank sums its samples' losses and divides by
    global_batch / world_size, and DDP's mean over ranks restores the rest, so slices may have different sizes.
    Micro-batches bound the memory and change nothing else, but for the draws of drop path and dropout.
    """
    device = batch.images.device
    optimizer.zero_grad(set_to_none=True)
    loss_sum = torch.zeros((), device=device)
    correct = torch.zeros((), device=device)
    parts = batch.split(options.micro_batch)
    for index, part in enumerate(parts):
        waits = isinstance(model, DistributedDataParallel) and index < len(parts) - 1
        with model.no_sync() if waits else nullcontext():  # type: ignore[operator]
            logits, losses = losses_of(model, part, options)
            (losses.sum() * (options.world_size / options.global_batch)).backward()
        loss_sum += losses.detach().sum()
        if options.features is None:
            correct += (logits.detach().argmax(1) == part.class_ids).sum()
    grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip_norm or float("inf"))
    if options.before_update is not None:
        options.before_update()
    if options.guard is not None:  # the fused optimizers read these two, as torch's GradScaler sets them
        optimizer.grad_scale = None  # type: ignore[attr-defined]
        optimizer.found_inf = options.guard.judge(grad_norm.detach())  # type: ignore[attr-defined]
    optimizer.step()
    return StepSums(loss_sum, correct, grad_norm.detach())


class MovingAverage:
    """An exponential moving average of the weights, warmed up so that early weights are forgotten."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = self.last_decay = decay
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards the weights after `step` steps (1 = the first)."""
        self.last_decay = decay = min(self.decay, (1 + step) / (10 + step))
        current = model.state_dict()
        floats = [name for name, value in self.weights.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.weights[n] for n in floats], [current[n] for n in floats], 1 - decay)
