"""The blocks before pooling, a few images at a time at inference: else they decide the peak of memory.

A slice has about as many tokens as the whole batch has behind the pooling, so these blocks need no more than those.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LEAST_TOKENS = {"cpu": 2048}
"""a slice of fewer would leave the device idle"""
LEAST_TOKENS_ELSEWHERE = 16384


@dataclass
class Sliced:
    """The forward of one block."""

    block: Any
    tokens: Callable[[], int]
    """of an image, behind the pooling"""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        forward = type(self.block).forward
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or not args:
            return forward(self.block, *args, **kwargs)
        x = args[0]
        least = LEAST_TOKENS.get(x.device.type, LEAST_TOKENS_ELSEWHERE)
        most = max(1, max(len(x) * self.tokens(), least) // x.shape[1])
        if len(x) <= most or any(_has_batch(other, len(x)) for other in (*args[1:], *kwargs.values())):
            return forward(self.block, *args, **kwargs)
        parts = [forward(self.block, part, *args[1:], **kwargs) for part in x.split(most)]
        if isinstance(parts[0], Tensor):
            return torch.cat(parts)
        return tuple(torch.cat(one) if isinstance(one[0], Tensor) else one[0] for one in zip(*parts))


def _has_batch(value: Any, count: int) -> bool:
    """Whether an argument may hold a row for each image."""
    return isinstance(value, Tensor) and value.ndim > 0 and value.shape[0] == count
