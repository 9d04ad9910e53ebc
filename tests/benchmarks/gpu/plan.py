"""What a stage is told: the device, whether it is a rehearsal, when it must end; and how a call is timed there."""

import statistics
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from focusvit.train.compiling import lead_around_spaces

STAGES = {"laws": 0.12, "segment": 0.09, "throughput": 0.33, "step": 0.13, "loop": 0.09, "accuracy": 0.24}
"""stage -> share of the minutes, in order of worth; a stage that needs less leaves the rest to those after it"""


@dataclass(frozen=True)
class Plan:
    """Handed to every stage."""

    device: str
    toy: bool
    ends: float
    """time.monotonic() by which the stage begins nothing new"""
    inputs: Path | None = None
    failures: list[str] = field(default_factory=list)
    """what failed and where, for whoever reads the record and has no second call"""

    @property
    def over(self) -> bool:
        return time.monotonic() > self.ends

    def wait(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()

    def seconds(self, call: Callable[[], object], at_least_s: float = 0.3) -> float:
        """Median seconds of a call: warmed up, repeated for `at_least_s` (once in a rehearsal)."""
        call()
        self.wait()
        found: list[float] = []
        until = time.monotonic() + (0.0 if self.toy else at_least_s)
        while (len(found) < 3 and not self.toy) or not found or (time.monotonic() < until and len(found) < 200):
            began = time.perf_counter()
            call()
            self.wait()
            found.append(time.perf_counter() - began)
        return statistics.median(found)

    @staticmethod
    def graph(call: Callable[[], object]) -> Callable[[], object]:
        """The call as one CUDA graph at fixed shape."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                call()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        return graph.replay

    def compiled(self, model: nn.Module) -> nn.Module:
        """`torch.compile`. A rehearsal traces forward and backward, and leaves out the kernels: they are other ones on
        a GPU, and building them takes a CPU half a minute a model."""
        torch._dynamo.reset()  # models share their code: after eight of them torch would go on eagerly without a word
        torch._dynamo.config.fail_on_recompile_limit_hit = True
        lead_around_spaces()
        return torch.compile(model, backend="aot_eager" if self.toy else "inductor")  # type: ignore[return-value]

    def failed(self, what: str, error: BaseException) -> str:
        """The cell of a row that did not run. All but a lack of memory or of a library is kept with its trace."""
        if isinstance(error, ImportError):
            return f"not to be had here: {str(error)[:100]}"
        if isinstance(error, torch.OutOfMemoryError):
            torch.cuda.empty_cache()
            return "out of memory"
        trace = "".join(traceback.format_exception(error))
        self.failures.append(f"{what}\n{trace[-3000:]}")
        return f"failed: {type(error).__name__}: {(str(error).strip() or '-').splitlines()[0][:100]}"
