"""A small model with the layout and the names of torchvision's VisionTransformer: 16 px images, patches of 4."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from testkit.model_reference import shaken


class TorchvisionLike(nn.Module):
    def __init__(self, depth: int = 4, width: int = 16, heads: int = 2, classes: int = 5) -> None:
        super().__init__()
        self.conv_proj = nn.Conv2d(3, width, 4, 4)
        self.class_token = nn.Parameter(torch.randn(1, 1, width))
        self.encoder = nn.Module()
        self.encoder.pos_embedding = nn.Parameter(torch.randn(1, 17, width))
        self.encoder.layers = nn.ModuleDict()
        for i in range(depth):
            layer = nn.Module()
            layer.ln_1, layer.ln_2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
            layer.self_attention = nn.MultiheadAttention(width, heads, batch_first=True)
            layer.mlp = nn.Sequential(
                nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(0), nn.Linear(4 * width, width), nn.Dropout(0)
            )
            self.encoder.layers[f"encoder_layer_{i}"] = layer
        self.encoder.ln = nn.LayerNorm(width, 1e-6)
        self.heads = nn.Sequential(OrderedDict(head=nn.Linear(width, classes)))

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv_proj(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], 1) + self.encoder.pos_embedding
        for layer in self.encoder.layers.values():
            h = layer.ln_1(x)
            x = x + layer.self_attention(h, h, h, need_weights=False)[0]
            x = x + layer.mlp(layer.ln_2(x))
        return self.heads(self.encoder.ln(x)[:, 0])


def torchvision_like(**values: int) -> nn.Module:
    torch.manual_seed(0)
    return shaken(TorchvisionLike(**values)).eval()
