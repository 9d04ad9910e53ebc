"""Settings of `python -m tests.benchmarks model`."""

from dataclasses import dataclass
from typing import Literal

import torch

from tests.benchmarks.model.variants import Variant
from tests.benchmarks.record import TimedConfig

SECTIONS = ("throughput", "compiled", "training", "memory", "sweep", "large", "linear")


def cpu_has_bf16() -> bool:
    """Whether this x86 processor multiplies bfloat16 matrices itself (AVX512-BF16 or AMX)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@dataclass(frozen=True, kw_only=True)
class BenchConfig(TimedConfig):
    """Speed and memory of the model, with random weights."""

    sections: tuple[str, ...] = SECTIONS
    """what to measure: throughput, compiled, training, memory, sweep, large, linear"""
    size: str = "small"
    """tiny, small or base"""
    batch_sizes: tuple[int, ...] = (1, 64)
    precisions: tuple[Literal["fp32", "bf16"], ...] = ()
    """fp32 by default, and bf16 where the processor has instructions for it: emulated, it says nothing"""
    memory_of: tuple[Literal["inference", "sliced", "training"], ...] = ("inference", "sliced", "training")
    """columns of section memory: inference with the whole batch at a time, inference in slices, training"""
    large_px: int = 512
    """side of the images in section large"""
    rounds: int = 5
    """how often the variants take turns; medians over rounds are reported"""
    models: tuple[str, ...] = ()
    """only models whose name contains one of these; the first one, which all are compared with, stays"""
    device: str = "cpu"
    photos: str = ""
    """folder of photos to segment; by default $FOCUSVIT_DATA/imagenet-sample, else drawn scenes"""

    def wanted(self, variants: dict[str, Variant], most: int | None = None) -> dict[str, Variant]:
        """The first `most` variants, those that `models` names."""
        names = list(variants)[:most]
        kept = [name for name in names[1:] if not self.models or any(part in name for part in self.models)]
        return {name: variants[name] for name in [names[0], *kept]}

    def precisions_here(self) -> tuple[Literal["fp32", "bf16"], ...]:
        """Those asked for, or what is worth measuring on this device."""
        with_bf16 = not self.device.startswith("cpu") or cpu_has_bf16()
        return self.precisions or (("fp32", "bf16") if with_bf16 else ("fp32",))

    def __post_init__(self) -> None:
        self.check_clock(self.device)
        wrong = [section for section in self.sections if section not in SECTIONS]
        if wrong:
            raise ValueError(f"--sections has '{wrong[0]}'; choose from {', '.join(SECTIONS)}")
        if self.size not in ("tiny", "small", "base"):
            raise ValueError(f"--size is '{self.size}'; choose tiny, small or base")
        if self.large_px < 16 or self.large_px % 16:
            raise ValueError(f"--large-px is {self.large_px}; it must be a multiple of the patch, 16")
        if not self.memory_of:
            raise ValueError("--memory-of is empty; give some of inference, sliced, training")
        if self.rounds < 1 or not self.batch_sizes or min(self.batch_sizes) < 1:
            raise ValueError(f"--rounds is {self.rounds} and --batch-sizes {self.batch_sizes}; all must be at least 1")
