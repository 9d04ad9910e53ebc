"""What is learned from a teacher. Light: help and mistakes on the command line are answered from here."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """A teacher and how much it counts."""

    teacher: str | None = None
    """logits: a checkpoint or run, trained on the same classes. features: a folder of Hugging Face or timm. None = no
    distillation"""
    target: Literal["logits", "features"] = "logits"
    """what is learned from the teacher: its logits, together with the labels; or its features, without any label"""
    regions: float = 0.5
    """features: share of the loss that each superpixel's own features have; 0 = those of the image alone"""
    cache_dir: str | None = None
    """features: folder on the local disk for those of repeated views (data.views); None = in the run directory"""
    weight: float = 0.5
    """share of the loss that follows the teacher's logits"""
    temperature: float = 1.0
    """softens both distributions (soft distillation)"""
    hard: bool = False
    """learn the teacher's first choice instead of its distribution (DeiT)"""

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1 or self.temperature <= 0:
            raise ValueError("distill.weight must be in [0, 1] and distill.temperature positive")
        if not 0 <= self.regions <= 1 or self.target not in ("logits", "features"):
            raise ValueError("distill.regions must be in [0, 1] and distill.target be logits or features")
