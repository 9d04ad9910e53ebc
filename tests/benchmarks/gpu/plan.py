"""What a stage is told: the device, whether it is a rehearsal, when it must end; and how a call is timed there."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

STAGES = {"laws": 0.10, "throughput": 0.34, "segment": 0.08, "step": 0.10, "loop": 0.08, "accuracy": 0.30}
"""stage -> share of the minutes, in order of worth; a stage that needs less leaves the rest to those after it"""


@dataclass(frozen=True)
class Plan:
    """Handed to every stage."""

    device: str
    toy: bool
    ends: float
    """time.monotonic() by which the stage begins nothing new"""
    inputs: Path | None = None

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

    def out_of_memory(self, error: BaseException) -> bool:
        if isinstance(error, torch.OutOfMemoryError):
            torch.cuda.empty_cache()
            return True
        return False
