"""Superpixels where the batch already is, without a step on the host: by Triton on a GPU, else by torch.

While torch compiles or exports, the torch form is taken everywhere: the compiler makes its own kernels of it.
"""

import functools
import logging
from typing import Any

import torch
from torch import Tensor

from .cells import map_size
from .torch_slic import torch_slic

log = logging.getLogger(__name__)
KERNEL_DEVICES = ("cuda",)
_refused: set[tuple[Any, ...]] = set()
"""What the kernels were asked for and failed at in this process: they are not built again"""


@torch.no_grad()
def slic(images: Tensor, tokens: int, *, compactness: float = 15.0, iterations: int = 10, reduce: int = 2) -> Tensor:
    """Superpixel maps (B, H / reduce, W / reduce) of `images` (B, 3, H, W): ids 0..tokens-1, each present, in uint8 up
    to 256 regions and int32 beyond.

    Args:
        images: uint8 RGB, or float RGB in [0, 1] (`to_unit_range` undoes a normalisation).
        tokens: K, the number of regions of every image.
        compactness: weight of position against CIE Lab distance, per distance of one region. Fragments are not joined
            here, so more of it is needed than fast-slic's 10 (`python -m tests.benchmarks slic` compares).
        iterations: rounds of assignment and means.
        reduce: images are averaged over squares of this many pixels first.

    Raises:
        ValueError: sides that are no multiple of `reduce`, or fewer pixels than regions.
    """
    settings = {"compactness": compactness, "iterations": iterations, "reduce": reduce}
    if images.device.type in KERNEL_DEVICES and not torch.compiler.is_compiling():
        asked = (images.device, images.dtype, tokens, *map_size(images, tokens, iterations, reduce), reduce)
        if asked not in _refused:
            try:
                from .triton_slic import triton_slic

                return triton_slic(images, tokens, **settings)  # type: ignore[arg-type]
            except torch.OutOfMemoryError:
                raise  # the torch form needs more
            except Exception as error:  # whatever a compiler or a driver can say
                _refused.add(asked)
                _say(f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0][:200]}")
    return torch_slic(images, tokens, **settings)  # type: ignore[arg-type]


@functools.lru_cache
def _say(reason: str) -> None:
    """Once for each reason."""
    log.warning("superpixels are made by torch, slower: the Triton kernels do not run here (%s)", reason)
