"""Which weights move, and how fast: freezing and learning-rate scales by name."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import nn


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def _check(model: nn.Module, patterns: Iterable[str]) -> None:
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(_matches(name, pattern) for name in names):
            parts = sorted({name.split(".")[0] for name in names})
            raise ValueError(f"no weight of the model matches '{pattern}'; its parts are {', '.join(parts)}")


def freeze(model: nn.Module, patterns: Iterable[str]) -> list[str]:
    """Stop the weights whose names match ("blocks.0", "blocks.*.attn", "patch_embed"); returns their names.

    Raises:
        ValueError: a pattern that matches nothing.
    """
    patterns = tuple(patterns)
    _check(model, patterns)
    frozen = [name for name, _ in model.named_parameters() if any(_matches(name, pattern) for pattern in patterns)]
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    return frozen


def scaled_groups(
    model: nn.Module, *, weight_decay: float, lr_scales: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Optimizer groups with `lr_scale` and `weight_decay`; frozen weights are absent. The last matching pattern wins.

    Vectors (biases, norms, temperatures), the class token and position embeddings are not decayed.

    Raises:
        ValueError: a pattern that matches nothing.
    """
    lr_scales = dict(lr_scales or {})
    _check(model, lr_scales)
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        scale = next((s for pattern, s in reversed(lr_scales.items()) if _matches(name, pattern)), 1.0)
        decay = weight_decay if parameter.squeeze().ndim > 1 and name not in ("cls_token", "pos_embed") else 0.0
        group = groups.setdefault((scale, decay), {"params": [], "lr_scale": scale, "weight_decay": decay})
        group["params"].append(parameter)
    return list(groups.values())
