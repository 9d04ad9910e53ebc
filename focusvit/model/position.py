"""Dynamic positional encoding: where a region lies, how large and how stretched it is, in numbers."""

import math

import torch
from torch import Tensor, nn

from .config import FocusViTConfig
from .regions import Regions

NUM_FREQUENCIES = 8
LOWEST_CYCLES, HIGHEST_CYCLES = 0.25, 16.0
NUM_FEATURES = 4 * NUM_FREQUENCIES + 4


class RegionFeatures(nn.Module):
    """phi(r): Fourier features of the centre, log area and shape: (B, K, .) -> (B, K, NUM_FEATURES). No weights.

    Frequencies run from 1/4 to 16 cycles across the image in equal ratios, sine and cosine for y and for x, so
    neighbouring centres differ and distant ones do not alias. Area is in units of a patch. Shape is the covariance over
    that of a square of the same area: (1, 1, 0) for a square, whatever its size.
    """

    frequencies: Tensor

    def __init__(self, config: FocusViTConfig) -> None:
        super().__init__()
        self.num_patches = config.num_patches
        self.aspect = config.image_size[0] / config.image_size[1]
        ratio = (HIGHEST_CYCLES / LOWEST_CYCLES) ** (1 / (NUM_FREQUENCIES - 1))
        cycles = LOWEST_CYCLES * ratio ** torch.arange(NUM_FREQUENCIES)
        self.register_buffer("frequencies", 2 * math.pi * cycles, persistent=False)

    def forward(self, regions: Regions) -> Tensor:
        angles = regions.centre[..., None] * self.frequencies.to(regions.centre.dtype)
        waves = torch.cat([angles.sin(), angles.cos()], -1).flatten(2)
        area = regions.area.clamp(min=1e-6)[..., None]
        # In pixels a unit square of the image is `aspect` as high as wide, so that a square region has equal variances.
        # Numbers, not a tensor of them: it would be sent to the device, and the host would wait for that.
        of_y, of_x, of_both = (12 * regions.covariance).unbind(-1)
        shape = torch.asinh(torch.stack([of_y * self.aspect, of_x * (1 / self.aspect), of_both], -1) / area)
        features = torch.cat([waves, torch.log(area * self.num_patches), shape], -1)
        return features * (regions.area > 0)[..., None]


class DescriptorEncoding(nn.Module):
    """e(r) = MLP(phi(r)): (B, K, NUM_FEATURES) -> (B, K, D)."""

    def __init__(self, config: FocusViTConfig) -> None:
        super().__init__()
        hidden = max(64, config.width // 2)
        self.fc1 = nn.Linear(NUM_FEATURES, hidden)
        self.fc2 = nn.Linear(hidden, config.width)
        self.zero_start = config.position == "both"

    def reset_start(self) -> None:
        """Beside a learned patch embedding the descriptor starts silent; alone it must speak from the first step."""
        nn.init.trunc_normal_(self.fc1.weight, std=NUM_FEATURES**-0.5)
        if self.zero_start:
            nn.init.zeros_(self.fc2.weight)

    def forward(self, features: Tensor) -> Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(features.to(self.fc1.weight.dtype))))
