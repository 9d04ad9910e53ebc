"""Which weights move, and how fast: freezing and learning-rate scales by name."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch import nn


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def check_patterns(model: nn.Module, patterns: Iterable[str]) -> None:
    """Raises ValueError for a pattern that no weight of the model matches."""
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(_matches(name, pattern) for name in names):
            parts = sorted({name.split(".")[0] for name in names})
            raise ValueError(f"no weight of the model matches '{pattern}'; its parts are {', '.join(parts)}")


def freeze(model: nn.Module, patterns: Iterable[str]) -> None:
    """Stop the weights whose names match ("blocks.0", "blocks.*.attn", "patch_embed").

    Raises:
        ValueError: a pattern that matches nothing.
    """
    patterns = tuple(patterns)
    check_patterns(model, patterns)
    for name, parameter in model.named_parameters():
        if any(_matches(name, pattern) for pattern in patterns):
            parameter.requires_grad_(False)


def lr_scale(name: str, lr_scales: dict[str, float]) -> float:
    """What the learning rate of the weight `name` is multiplied with: the last matching pattern wins, 1 without one."""
    return next((scale for pattern, scale in reversed(lr_scales.items()) if _matches(name, pattern)), 1.0)
