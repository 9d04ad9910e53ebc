"""The few things ranks of one training say to each other. With one rank every function is the identity."""

from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist

Value = TypeVar("Value")


def world() -> int:
    """Number of ranks in the running process group; 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's place in the process group; 0 without one."""
    return dist.get_rank() if world() > 1 else 0


def gather(value: Value) -> list[Value]:
    """What each rank holds, in the order of the ranks, on every rank."""
    found = [value] * world()
    if len(found) > 1:
        dist.all_gather_object(found, value)
    return found


def sum_array(values: np.ndarray) -> np.ndarray:
    """The sum over ranks of a float64 vector (whole counts stay exact up to 2**53)."""
    if world() == 1:
        return values
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    total = torch.from_numpy(np.ascontiguousarray(values, np.float64)).to(device)
    dist.all_reduce(total)
    return total.cpu().numpy()


def check_same(value: float, what: str) -> None:
    """Raise RuntimeError on every rank unless all hold the same `value`."""
    values = gather(value)
    if any(other != values[0] for other in values):
        raise RuntimeError(
            f"ranks disagree about {what}: {values}. The run can go on from its last checkpoint; look for different "
            "library versions or a damaged machine among the workers."
        )
