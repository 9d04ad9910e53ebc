"""How many images run through a model at a time at inference: all of them on a GPU, a few on a CPU.

On a CPU a slice keeps its activations in the caches and the peak of memory low, and costs no time (16 images of ViT-S
are as fast as 64). A GPU wants whole batches, and so does a compiled or exported graph, which plans its own memory.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

CPU_IMAGES = 16
STEM_PIXELS = 2**16
"""the most of a slice of a stem, which works at full resolution: with few tokens its activations are the largest"""
STEM_IMAGES = 4
"""the most of such a slice where images have more pixels than that"""


def images_at_once(images: Tensor, wanted: int | None) -> int | None:
    """The most images of this batch to run at a time: all of them (None) where gradients are kept or a graph is
    captured, which takes other batches later; else `wanted`, else what the device likes.
    """
    if _whole():
        return None
    return wanted or (CPU_IMAGES if images.device.type == "cpu" else None)


def stem_images_at_once(images: Tensor) -> int | None:
    """As `images_at_once`, of (B, 3, H, W), for the stem alone, whatever a model is set to: on a CPU a wide stem is
    also faster so. A hook on a stem sees the slices there.
    """
    if _whole() or images.device.type != "cpu":
        return None
    return max(STEM_IMAGES, STEM_PIXELS // (images.shape[2] * images.shape[3]))


def _whole() -> bool:
    return torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing()


def in_slices(model: Callable[..., Tensor], *inputs: Tensor | None, most: int | None) -> Tensor:
    """What `model` gives for the rows of `inputs` (B, ...), run in as few equal slices of at most `most` as it takes;
    None = whole, whatever B is.

    An input that is None stays None. The model must treat each image by itself.
    """
    if most is None:
        return model(*inputs)
    num = max(len(x) for x in inputs if x is not None)
    count = max(1, -(-num // most))
    if count == 1:
        return model(*inputs)
    borders = [num * i // count for i in range(count + 1)]
    parts = [slice(*pair) for pair in pairwise(borders)]
    return torch.cat([model(*(x if x is None else x[part] for x in inputs)) for part in parts])
