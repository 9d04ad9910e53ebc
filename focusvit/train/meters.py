"""Running sums of a training between two points of its curves: loss, throughput, where the time goes."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from focusvit.data.batch import Batch
from focusvit.drop_in.host_model import Model
from focusvit.precision import settled
from pipeline.io.peak_memory import peak_bytes

from . import ranks
from .config import TrainConfig
from .flops import peak_flops, step_flops
from .guard import Guard
from .step import MovingAverage, StepSums
from .system_metrics import SystemMetrics


class Meters:
    """Sums stay on the device until a point is taken; scoring and saving do not count as training time."""

    def __init__(self, config: TrainConfig, model: Model, device: torch.device, num_replaced: int = 0) -> None:
        """`num_replaced`: samples that were replaced before this start of the run."""
        self._config, self._device = config, device
        self.num_replaced = num_replaced
        self._system = SystemMetrics(device)
        self._counts = ranks.rank() == 0  # all ranks do the same work at the same time: one counts it
        self._flops_of: dict[int | None, float] = {}
        self._peak_flops = 0.0
        if self._counts:
            self._flops_of = step_flops(model, config.token_budgets or (config.model.tokens,))
            self._peak_flops = peak_flops(device, settled(config.precision, device) == "bf16")
        self._blocked_ms = 0.0
        self._clear()

    def _clear(self) -> None:
        self._sums = torch.zeros(3, device=self._device)  # loss, samples right, norms of gradients
        self._steps = self._count = self._replaced = self._tokens = 0
        self._wait_s = self._flops = 0.0
        self._since = time.perf_counter()

    def waiting(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches, with the time spent waiting for each counted."""
        source = iter(batches)
        while True:
            start = time.perf_counter()
            try:
                batch = next(source)
            except StopIteration:
                return
            self._wait_s += time.perf_counter() - start
            yield batch

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time inside does not count."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._since += time.perf_counter() - start

    @contextmanager
    def blocked_by_checkpoint(self) -> Iterator[None]:
        """Note how long the training stood still for a checkpoint."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._blocked_ms = 1000 * (time.perf_counter() - start)

    def add(self, sums: StepSums, batch: Batch) -> None:
        self._sums += torch.stack([sums.loss, sums.correct, sums.grad_norm])
        self._steps += 1
        self._count += len(batch)
        self._replaced += batch.num_replaced
        self._tokens += (batch.num_tokens or self._config.model.tokens or self._config.model.num_patches) * len(batch)
        shape = batch.num_tokens if self._config.token_budgets else self._config.model.tokens
        self._flops += self._flops_of[shape] * self._config.global_batch if self._counts else 0.0

    def point(self, lr: float, epoch: float, guard: Guard, ema: MovingAverage | None = None) -> dict[str, float]:
        """The values since the last point, over all ranks (every rank must call this at the same step)."""
        sums = self._sums.double().cpu()  # waits for the device
        elapsed = max(1e-9, time.perf_counter() - self._since)
        local = [*sums.tolist(), self._count, self._replaced, self._tokens, self._flops, self._wait_s, elapsed]
        total = ranks.sum_array(np.array([*local, self._peak_flops, 1]))
        loss, correct, norm, count, replaced, tokens, flops, wait_s, elapsed_s, peak, num_ranks = total.tolist()
        seconds = elapsed_s / num_ranks
        self.num_replaced += int(replaced)
        values = {
            "train/loss": loss / count,
            **({} if self._config.label_free else {"train/top1": correct / count}),
            "train/grad_norm": norm / (self._steps * num_ranks),
            "train/lr": lr,
            "train/epoch": epoch,
            "train/skipped_nonfinite": float(guard.num_nonfinite),
            "train/skipped_spikes": float(guard.num_spikes),
            "train/replaced_samples": float(self.num_replaced),
            "perf/img_per_s": count / seconds,
            "perf/img_per_s_per_worker": count / elapsed_s,
            "perf/tokens_per_image": tokens / count,
            "perf/tokens_per_s": tokens / seconds,
            "perf/step_ms": 1000 * seconds / self._steps,
            "perf/data_wait_share": min(1.0, wait_s / elapsed_s),
            "perf/mfu": flops / seconds / (peak * num_ranks),
            "perf/memory_gb": self._memory_bytes() / 1e9,
            "perf/checkpoint_blocked_ms": self._blocked_ms,
            "perf/workers": num_ranks,
            **({"train/ema_decay": ema.last_decay} if ema else {}),
            **self._system.values(),
        }
        self._clear()
        return values

    def _memory_bytes(self) -> float:
        """Peak memory of this rank: of the GPU, else of the process."""
        if self._device.type == "cuda":
            return float(torch.cuda.max_memory_allocated(self._device))
        return float(peak_bytes())
