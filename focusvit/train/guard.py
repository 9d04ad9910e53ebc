"""Guard rails of a training: a step that would spoil the weights is skipped and counted. Imports torch only.

The verdict is made on the device and given to the fused optimizer, so no step waits for the host (see `watch`).
"""

import torch
from torch import Tensor

_SETTLED_STEPS = 50


class Guard:
    """Decides for each step whether its gradient may move the weights. State is three numbers on the device."""

    def __init__(self, spike_factor: float, device: torch.device | str) -> None:
        self.spike_factor = spike_factor
        self.mean_norm = torch.zeros((), device=device)
        """running mean of the gradient norms that were used"""
        self.num_used = torch.zeros((), device=device)
        self.num_nonfinite = torch.zeros((), device=device)
        self.num_spikes = torch.zeros((), device=device)

    def judge(self, grad_norm: Tensor) -> Tensor:
        """1.0 = skip this step, else 0.0: for what is not finite and, once norms have settled, far above them.

        `grad_norm` is the norm over all ranks, so every rank decides alike.
        """
        nonfinite = ~torch.isfinite(grad_norm)
        spike = torch.zeros_like(nonfinite)
        if self.spike_factor > 0:
            spike = ~nonfinite & (self.num_used >= _SETTLED_STEPS) & (grad_norm > self.spike_factor * self.mean_norm)
        skip = (nonfinite | spike).float()
        share = torch.clamp(1 / (self.num_used + 1), min=0.02) * (1 - skip)
        self.mean_norm += share * (torch.nan_to_num(grad_norm, posinf=0.0, neginf=0.0) - self.mean_norm)
        self.num_used += 1 - skip
        self.num_nonfinite += nonfinite.float()
        self.num_spikes += spike.float()
        return skip

    def tensors(self) -> dict[str, Tensor]:
        """The state to save, so that a resumed run decides as an uninterrupted one."""
        names = ("mean_norm", "num_used", "num_nonfinite", "num_spikes")
        return {f"guard.{name}": getattr(self, name) for name in names}

    def fill(self, tensors: dict[str, Tensor]) -> None:
        for name, value in self.tensors().items():
            if name in tensors:
                value.copy_(tensors[name])
