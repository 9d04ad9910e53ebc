"""SPPP, superpixel patch pooling: patches (B, N, D) and their overlap with K regions -> tokens (B, K, D).

With O[k, j] = |S_k n P_j| / |P_j| and W[k, j] = O[k, j] / sum_j O[k, j], a token is a weighted statistic of the patches
that its region touches. All but the maximum are matrix products, so they export, compile and are deterministic.
"""

import torch
from torch import Tensor, nn

from .config import FocusViTConfig, Pooling
from .regions import exact, full_precision, harden

_STD_EPS = 1e-5
_MAX_CHANNELS_AT_ONCE = 16


class SuperpixelPooling(nn.Module):
    """Every mode starts as the mean of W, whatever it learns later, so pretrained weights start at a sane point.

    mean       t_k = sum_j W[k, j] x_j
    max        per channel, the largest x_j over the patches with O[k, j] > 0
    mean_std   mean + A (std - eps'), A = 0 at the start; std is 0 for a region inside one patch
    attention  t_k = sum_j softmax_j(s(x_j) + log O[k, j]) x_j with a learned saliency s = 0 at the start
    """

    def __init__(self, config: FocusViTConfig) -> None:
        super().__init__()
        self.mode: Pooling = config.pooling
        self.hard = config.overlap == "hard"
        attends = self.mode == "attention"
        self.std_proj = nn.Linear(config.width, config.width, bias=False) if self.mode == "mean_std" else None
        self.norm = nn.LayerNorm(config.width, config.norm_eps) if attends else None
        self.saliency = nn.Linear(config.width, 1, bias=False) if attends else None

    def reset_start(self) -> None:
        """The zero weights that make every mode start as the mean."""
        for layer in (self.std_proj, self.saliency):
            if layer is not None:
                nn.init.zeros_(layer.weight)

    def membership(self, overlap: Tensor, centre: Tensor) -> Tensor:
        """The (B, K, N) weights before normalisation: the overlap itself, or its hard form."""
        return harden(overlap, centre) if self.hard else overlap

    def forward(self, patches: Tensor, membership: Tensor) -> Tensor:
        """(B, N, D), (B or 1, K, N) -> (B, K, D). An empty region gives a zero token."""
        membership = membership.to(patches.dtype if patches.dtype == torch.float64 else torch.float32)
        if self.mode == "max":
            return _largest(patches, membership)
        if self.norm is not None and self.saliency is not None:
            score = self.saliency(self.norm(patches)).squeeze(-1)
            # Bounded, so that no region's weights can all underflow: exp(+-5) keeps a ratio of 22,000.
            score = 5 * torch.tanh(score.to(membership.dtype) / 5)
            membership = membership * score.exp()[:, None, :]
        weights = membership / membership.sum(2, keepdim=True).clamp(min=1e-6)
        if self.std_proj is None:
            return _weighted(weights, patches)
        # The variance is a difference of nearly equal numbers: never in bfloat16.
        values = exact(patches.to(weights.dtype))  # for the backward pass, which runs outside
        with full_precision(patches):
            mean = _weighted(weights, values)
            variance = (_weighted(weights, values * values) - mean * mean).clamp(min=0)
            std = (variance + _STD_EPS).sqrt() - _STD_EPS**0.5
        return mean.to(patches.dtype) + self.std_proj(std.to(self.std_proj.weight.dtype))


def _weighted(weights: Tensor, patches: Tensor) -> Tensor:
    return weights.to(patches.dtype).expand(patches.shape[0], -1, -1) @ patches


def _largest(patches: Tensor, membership: Tensor) -> Tensor:
    """Index of the largest patch per region and channel without a gradient, a few channels at a time, then a gather:
    the (B, K, N, D) tensor of the plain definition never exists.
    """
    inside = (membership > 0).expand(patches.shape[0], -1, -1)
    with torch.no_grad():
        index = torch.cat(
            [
                torch.where(inside[..., None], part[:, None], float("-inf")).argmax(2)
                for part in patches.split(_MAX_CHANNELS_AT_ONCE, dim=2)
            ],
            dim=2,
        )
    return patches.gather(1, index) * inside.any(2, keepdim=True)
