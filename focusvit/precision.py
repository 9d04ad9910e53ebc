"""In which numbers a model computes: one setting for training, scoring, prediction and transfer, right by device.

auto    bf16 on a GPU that has it (from compute capability 8.0 on), else fp32
bf16    forward under bfloat16 autocast; weights, sums and losses stay in float32, whose matrix products a GPU may
        round to TF32, but for those that need all their digits (`focusvit.model.regions.full_precision`, `exact`)
fp32    float32 throughout
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "fp32", "tf32", "bf16"]


def settled(precision: Precision, device: "torch.device | str") -> Literal["fp32", "tf32", "bf16"]:
    """What a setting means on this device."""
    import torch

    on_gpu = torch.device(device).type == "cuda"
    if precision == "auto":
        # An older GPU (V100, T4) emulates it, slower than fp32, and torch.compile cannot make kernels of it there.
        return "bf16" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "fp32" if precision == "tf32" and not on_gpu else precision


def as_trained(precision: Precision, config: Mapping[str, Any]) -> Precision:
    """What was asked for; where that is auto, the setting in the `config` of the training, so that its checkpoint is
    scored as `val/top1` was."""
    return config.get("precision", "auto") if precision == "auto" else precision


@contextmanager
def tf32(precision: Precision, device: "torch.device | str") -> Iterator[None]:
    """Inside, float32 products on `device` may be TF32 where `precision` says so. Forward and backward belong inside.

    The setting is torch's own for the whole process, and is put back.
    """
    import torch

    if precision != "tf32" or torch.device(device).type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def computing(precision: Precision, device: "torch.device | str") -> Iterator[None]:
    """Inside, a model's forward on `device` computes as `precision` says."""
    import torch

    bf16 = settled(precision, device) == "bf16"
    with tf32(precision, device), torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16):
        yield
