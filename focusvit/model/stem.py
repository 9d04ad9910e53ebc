"""Stems: pixels (B, 3, H, W) -> patch embeddings (B, N, D) in raster order of the patch grid."""

import torch
from torch import Tensor, nn

from .config import FocusViTConfig


class LinearStem(nn.Module):
    """The ViT's patch embedding: one linear map of each patch's pixels. Names as in timm (`proj`)."""

    def __init__(self, config: FocusViTConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.width, config.patch_px, config.patch_px)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, H, W). Not BatchNorm: an image must not depend on its batch."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvStem(nn.Module):
    """log2(patch) convolutions 3x3 of stride 2, each with LayerNorm and GELU, then a 1x1 convolution to D.

    It gives each patch a non-linear description before anything is averaged: the mean of *linear* patch embeddings is
    the embedding of the mean patch, so their pooling loses texture. Channels double up to D/2.
    """

    def __init__(self, config: FocusViTConfig) -> None:
        super().__init__()
        num_convs = max(1, config.patch_px.bit_length() - 1)
        layers: list[nn.Module] = []
        before = 3
        for i in range(num_convs):
            after = max(24, config.width // 2 ** (num_convs - i))
            stride = 2 if config.patch_px > 1 else 1
            layers += [nn.Conv2d(before, after, 3, stride, 1), ChannelNorm(after, config.norm_eps), nn.GELU()]
            before = after
        self.convs = nn.Sequential(*layers)
        self.proj = nn.Conv2d(before, config.width, 1)

    def forward(self, images: Tensor) -> Tensor:
        # channels_last: the norm over channels and the convolutions then read memory in order.
        x = images.contiguous(memory_format=torch.channels_last)
        return self.proj(self.convs(x)).flatten(2).transpose(1, 2)


def make_stem(config: FocusViTConfig) -> nn.Module:
    return LinearStem(config) if config.stem == "linear" else ConvStem(config)
