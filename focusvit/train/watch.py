"""Looks at the guard's verdicts from the host, and keeps the first bad steps for `focusvit replay`.

It looks one step late, just before the optimizer moves again: the weights are then still those of the skipped step, and
no step had to wait for the device.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from focusvit.data.batch import Batch
from focusvit.runs.run_dir import RunDir
from focusvit.runs.sealed_json import put_sealed
from pipeline.errors import DataError
from pipeline.io import storage

MAX_DUMPS = 3
MAX_IN_A_ROW = 20
GENTLER = "Lower optim.lr, set optim.clip_norm, or use --precision fp32"


class DivergedError(DataError):
    """A training whose gradients have been nothing but non-finite for a while. A sweep goes on without it."""


@dataclass
class _Seen:
    batch: Batch
    nonfinite: Tensor
    """on the host; of a GPU it may be on its way until `arrived`"""
    arrived: Any
    samples_seen: int

    def was_bad(self) -> bool:
        """Waits for the step itself and not, as reading a GPU's value would, for all that was queued after it."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return bool(self.nonfinite)


class Watch:
    """Looks at verdicts one step late and keeps the first bad steps for `focusvit replay`."""

    def __init__(self, run: RunDir, rank: int, facts: dict[str, Any], weights: Callable[[], dict[str, Tensor]]) -> None:
        self._run, self._rank, self._facts, self._weights = run, rank, facts, weights
        self._last: _Seen | None = None
        self._num_dumps = self._in_a_row = 0

    def remember(self, batch: Batch, grad_norm: Tensor, samples_seen: int) -> None:
        """Note a step that ended; `samples_seen` is the position before it."""
        nonfinite, arrived = ~torch.isfinite(grad_norm), None if grad_norm.device.type != "cuda" else torch.cuda.Event()
        if arrived is not None:
            nonfinite = nonfinite.to("cpu", non_blocking=True)
            arrived.record()
        self._last = _Seen(batch, nonfinite, arrived, samples_seen)

    def check(self) -> None:
        """Look at the last step. Raises `DivergedError` when nothing but bad steps has come for a while."""
        last, self._last = self._last, None
        if last is None or not last.was_bad():
            self._in_a_row = 0 if last is not None else self._in_a_row
            return
        self._in_a_row += 1
        place = self._run.path("dumps", f"{last.samples_seen:012d}")
        if self._num_dumps < MAX_DUMPS:
            self._num_dumps += 1
            dump(place, last.batch, self._rank, self._weights(), {**self._facts, "samples_seen": last.samples_seen})
        if self._in_a_row >= MAX_IN_A_ROW:
            raise DivergedError(
                f"the gradient was not finite in {self._in_a_row} steps in a row, up to {last.samples_seen} samples. "
                f"{GENTLER}; `focusvit replay {place}` shows where."
            )


_HOPELESS = 1000.0
"""A validation loss of so many times what guessing gives is no model that errs, it is weights that ran away."""


def check_scores(metrics: dict[str, float], num_classes: int, samples_seen: int) -> None:
    """Raise `DivergedError` for a validation loss (mean cross-entropy) that no learning model has."""
    loss, guessing = metrics["val/loss"], math.log(max(2, num_classes))
    if not math.isfinite(loss) or loss > _HOPELESS * guessing:
        raise DivergedError(
            f"the validation loss at {samples_seen} samples is {loss:.3g}, where guessing gives {guessing:.3g}: the "
            f"training diverged. {GENTLER}."
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
        put_sealed(storage.join(uri, "dump.json"), {**facts, "num_tokens": batch.num_tokens})
