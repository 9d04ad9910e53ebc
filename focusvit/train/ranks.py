"""The few things ranks of one training say to each other. With one rank every function is the identity."""

import numpy as np
import torch
import torch.distributed as dist


def world() -> int:
    """Number of ranks in the running process group; 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's place in the process group; 0 without one."""
    return dist.get_rank() if world() > 1 else 0


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
    if world() == 1:
        return
    mine = np.zeros(world())
    mine[rank()] = value
    values = sum_array(mine)
    if (values != values[0]).any():
        raise RuntimeError(
            f"ranks disagree about {what}: {values.tolist()}. The run can go on from its last checkpoint; look for "
            "different library versions or a damaged machine among the workers."
        )


def barrier() -> None:
    """Wait until every rank is here."""
    if world() > 1:
        dist.barrier()
