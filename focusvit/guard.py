"""Guard rails of a training: steps that would spoil the weights are skipped, counted and kept for replay.

The verdict is made on the device and given to the fused optimizer, so no step waits for the host. The host looks at a
verdict one step later, just before the optimizer moves again: the weights are then still those of the skipped step.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from pipeline import storage
from pipeline.errors import DataError

from .batch import Batch
from .run import RunDir

MAX_DUMPS = 3
MAX_IN_A_ROW = 20
_SETTLED_STEPS = 50


class Guard:
    """Decides for each step whether its gradient may move the weights. State is three numbers on the device."""

    def __init__(self, spike_factor: float, device: torch.device | str) -> None:
        self.spike_factor = spike_factor
        self.mean_norm = torch.zeros((), device=device)
        """running mean of the gradient norms that were used"""
        self.num_used = torch.zeros((), device=device)
        self.num_nonfinite = torch.zeros((), device=device)
        self.num_spikes = torch.zeros((), device=device)

    def judge(self, grad_norm: Tensor) -> Tensor:
        """1.0 = skip this step, else 0.0: for what is not finite and, once norms have settled, far above them.

        `grad_norm` is the norm over all ranks, so every rank decides alike.
        """
        nonfinite = ~torch.isfinite(grad_norm)
        spike = torch.zeros_like(nonfinite)
        if self.spike_factor > 0:
            spike = ~nonfinite & (self.num_used >= _SETTLED_STEPS) & (grad_norm > self.spike_factor * self.mean_norm)
        skip = (nonfinite | spike).float()
        share = torch.clamp(1 / (self.num_used + 1), min=0.02) * (1 - skip)
        self.mean_norm += share * (torch.nan_to_num(grad_norm, posinf=0.0, neginf=0.0) - self.mean_norm)
        self.num_used += 1 - skip
        self.num_nonfinite += nonfinite.float()
        self.num_spikes += spike.float()
        return skip

    def tensors(self) -> dict[str, Tensor]:
        """The state to save, so that a resumed run decides as an uninterrupted one."""
        names = ("mean_norm", "num_used", "num_nonfinite", "num_spikes")
        return {f"guard.{name}": getattr(self, name) for name in names}

    def fill(self, tensors: dict[str, Tensor]) -> None:
        for name, value in self.tensors().items():
            if name in tensors:
                value.copy_(tensors[name])


@dataclass
class _Seen:
    batch: Batch
    nonfinite: Tensor
    samples_seen: int


class Watch:
    """Looks at verdicts one step late and keeps the first bad steps for `focusvit replay`."""

    def __init__(self, run: RunDir, rank: int, facts: dict[str, Any], weights: Callable[[], dict[str, Tensor]]) -> None:
        self._run, self._rank, self._facts, self._weights = run, rank, facts, weights
        self._last: _Seen | None = None
        self._num_dumps = self._in_a_row = 0

    def remember(self, batch: Batch, grad_norm: Tensor, samples_seen: int) -> None:
        """Note a step that ended; `samples_seen` is the position before it."""
        self._last = _Seen(batch, ~torch.isfinite(grad_norm), samples_seen)

    def check(self) -> None:
        """Look at the last step. Raises `DataError` when nothing but bad steps has come for a while."""
        last, self._last = self._last, None
        if last is None or not bool(last.nonfinite):
            self._in_a_row = 0 if last is not None else self._in_a_row
            return
        self._in_a_row += 1
        place = self._run.path("dumps", f"{last.samples_seen:012d}")
        if self._num_dumps < MAX_DUMPS:
            self._num_dumps += 1
            dump(place, last.batch, self._rank, self._weights(), {**self._facts, "samples_seen": last.samples_seen})
        if self._in_a_row >= MAX_IN_A_ROW:
            raise DataError(
                f"the gradient was not finite in {self._in_a_row} steps in a row, up to {last.samples_seen} samples. "
                f"Lower optim.lr, set optim.clip_norm, or use --precision fp32; `focusvit replay {place}` shows where."
            )


def dump(uri: str, batch: Batch, rank: int, weights: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Keep one rank's batch, and from rank 0 the weights and what a replay needs to know."""
    tensors = {
        field.name: value.detach().cpu().contiguous()
        for field in dataclasses.fields(batch)
        if isinstance(value := getattr(batch, field.name), Tensor)
    }
    storage.put(storage.join(uri, f"batch-{rank}.safetensors"), safetensors.torch.save(tensors))
    if rank == 0:
        plain = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
        storage.put(storage.join(uri, "model.safetensors"), safetensors.torch.save(plain))
        storage.put_json(storage.join(uri, "dump.json"), {**facts, "num_tokens": batch.num_tokens})
