"""Settings of `focusvit bench model`."""

from dataclasses import dataclass

SECTIONS = ("throughput", "compiled", "training", "memory", "sweep", "large")


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Speed and memory of the model, with random weights."""

    sections: tuple[str, ...] = SECTIONS
    """what to measure: throughput, compiled, training, memory, sweep, large"""
    size: str = "small"
    """tiny, small or base"""
    batch_sizes: tuple[int, ...] = (1, 64)
    rounds: int = 5
    """how often the variants take turns; medians over rounds are reported"""
    device: str = "cpu"
    photos: str = ""
    """folder of photos to segment; by default $FOCUSVIT_DATA/imagenet-sample, else drawn scenes"""
    name: str = "model"
    """results go to tests/benchmarks/results/NAME.json and .md"""

    def __post_init__(self) -> None:
        wrong = [section for section in self.sections if section not in SECTIONS]
        if wrong:
            raise ValueError(f"--sections has '{wrong[0]}'; choose from {', '.join(SECTIONS)}")
        if self.size not in ("tiny", "small", "base"):
            raise ValueError(f"--size is '{self.size}'; choose tiny, small or base")
        if self.rounds < 1 or not self.batch_sizes or min(self.batch_sizes) < 1:
            raise ValueError(f"--rounds is {self.rounds} and --batch-sizes {self.batch_sizes}; all must be at least 1")
