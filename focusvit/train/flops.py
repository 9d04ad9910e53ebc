"""How many floating-point operations a training step needs, and how many the device could do: together the MFU."""

import dataclasses
import functools
import re
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from focusvit.drop_in.host_config import ModelConfig
    from focusvit.drop_in.host_model import Model

# Dense bf16 rates of data sheets, in 1e12 operations a second; of two that fit, the first counts.
_DATA_SHEETS = {
    "H200 NVL": 835, "H100 NVL": 835, "H100 PCIe": 756, "H200": 989, "H100": 989, "A100": 312, "L40S": 362, "L4": 121,
    "A10": 125, "A10G": 70,
}  # fmt: skip

_COUNTED: dict["ModelConfig", int] = {}
"""multiply-adds of one image; a sweep trains models of one shape many times"""


def step_flops(model: "Model", token_counts: Iterable[int | None]) -> dict[int | None, float]:
    """Operations of one image in a training step, for each number of tokens: forward, and twice that for backward.

    Only matrix products and convolutions count; a teacher and recomputed blocks do not (they are no progress). The
    model is left as it was.
    """
    from focusvit.model.cost import count_multiply_adds, example_inputs

    device, training, flops = str(next(model.parameters()).device), model.training, {}
    for tokens in token_counts:
        shaped = model.config if tokens is None else dataclasses.replace(model.config, tokens=tokens)
        if shaped not in _COUNTED:
            images, maps = example_inputs(shaped, 1, device=device)
            counted = (images,) if maps is None else (images, maps, tokens)
            _COUNTED[shaped] = count_multiply_adds(model, *counted)  # type: ignore[arg-type]
        flops[tokens] = 3 * 2.0 * _COUNTED[shaped]
    model.train(training)
    return flops


def data_sheet(name: str) -> float | None:
    """1e12 operations a second of the GPU of this name; None for one that is not known, and for a part of one (MIG)."""
    if " MIG " in name:
        return None
    # Whole words: an L40 is no L4, an RTX A1000 no A100.
    return next((tera for known, tera in _DATA_SHEETS.items() if re.search(rf"\b{known}\b", name)), None)


@functools.cache
def peak_flops(device: torch.device, bf16: bool) -> float:
    """Operations a second: a GPU's data sheet in bf16; else what a large matrix product reaches here, measured once in
    a process."""
    if device.type == "cuda" and bf16:
        tera = data_sheet(torch.cuda.get_device_name(device))
        if tera:
            return tera * 1e12
    side = 4096 if device.type == "cuda" else 768
    matrix = torch.ones(side, side, device=device, dtype=torch.bfloat16 if bf16 else torch.float32)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        _ = float((matrix @ matrix)[0, 0])  # reading one value waits for the device
        seconds.append(time.perf_counter() - start)
    return 2.0 * side**3 / min(seconds)
