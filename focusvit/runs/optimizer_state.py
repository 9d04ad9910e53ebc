"""The state of an optimizer as tensors under readable names, and back."""

import torch
from torch import Tensor

from pipeline.errors import DataError


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: dict[int, str]) -> dict[str, Tensor]:
    """The optimizer's state under readable names: 'optim.exp_avg.blocks.0.attn.qkv.weight'. `names`: id(p) -> name."""
    return {
        f"optim.{kind}.{names[id(parameter)]}": value
        for parameter, slots in optimizer.state.items()
        for kind, value in slots.items()
        if isinstance(value, Tensor)
    }


def fill_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], names: dict[int, str]) -> None:
    """The inverse of `optimizer_tensors`. Step counters go to the parameter's device too: fused kernels read them.

    Raises `DataError` that names what is left over, missing beside its neighbours, or of another shape.
    """
    given: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optim."):
            _, kind, name = key.split(".", 2)
            given.setdefault(name, {})[kind] = value
    kinds = {kind for slots in given.values() for kind in slots}
    problems = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            slots = given.pop(name, {})
            problems += [f"{kind} of {name} is missing" for kind in sorted(kinds - set(slots)) if slots]
            problems += [
                f"{kind} of {name} is {tuple(value.shape)}"
                for kind, value in slots.items()
                if value.shape != (() if kind == "step" else parameter.shape)
            ]
            if slots:
                optimizer.state[parameter] = {kind: value.to(parameter.device) for kind, value in slots.items()}
    problems += [f"{name} is no weight that moves" for name in given]
    if problems:
        raise DataError(f"the optimizer's state does not fit the model: {'; '.join(problems[:4])}.")
