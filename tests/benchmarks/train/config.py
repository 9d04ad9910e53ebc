"""What `bench train` is asked to measure."""

from dataclasses import dataclass
from typing import Literal

from tests.benchmarks.record import TimedConfig

SECTIONS = ("step", "loop", "checkpoint", "ranks")


@dataclass(frozen=True, kw_only=True)
class BenchTrainConfig(TimedConfig):
    """Speed of the training step and of the loop around it, with random weights."""

    sections: tuple[str, ...] = SECTIONS
    """what to measure: step, loop, checkpoint, ranks"""
    size: Literal["tiny", "small", "base"] = "small"
    """size of FocusViT and of the plain ViT beside it"""
    batch: int = 32
    """images of a step; in `ranks` of each rank"""
    rounds: int = 5
    """how often what is compared takes turns; medians over rounds are reported"""
    steps: int = 12
    """steps of the real loop"""
    device: str = "cpu"
    """cpu or cuda; on a GPU only `step` is measured"""

    def __post_init__(self) -> None:
        wrong = [section for section in self.sections if section not in SECTIONS]
        if wrong:
            raise ValueError(f"--sections has '{wrong[0]}'; choose from {', '.join(SECTIONS)}")
        if self.device != "cpu" and (self.clock == "cpu" or self.sections != ("step",)):
            raise ValueError(f"on the device {self.device} only --sections step with --clock wall is measured")
        if min(self.batch, self.rounds, self.steps) < 1:
            raise ValueError("--batch, --rounds and --steps must be at least 1")
