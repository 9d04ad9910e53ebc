"""Named models: the FocusViT sizes, the plain ViT of the same sizes, and small images.

Every function takes overrides: `focusvit("small", tokens=100, num_classes=10)`, `focusvit("base", **LLA)`.
"""

from typing import Any

from .config import FocusViTConfig

SIZES: dict[str, dict[str, int]] = {  # DeiT / ViT sizes (Touvron et al. 2021, table 1)
    "tiny": {"width": 192, "depth": 12, "heads": 3},
    "small": {"width": 384, "depth": 12, "heads": 6},
    "base": {"width": 768, "depth": 12, "heads": 12},
}
PLAIN: dict[str, Any] = {"tokens": None, "position": "pooled", "grid_depth": 0, "trunk": "full", "stem": "linear"}
"""What makes a ViT of any size of ours plain."""

LEAN: dict[str, Any] = {"grid_depth": 0}
"""Pooling right behind the stem: a fifth faster, half of ViT-S/16's memory at batch 64 in training, at inference only
where the stem runs in slices, on a CPU (`bench model`), and the fastest FocusViT whose accuracy stayed within a point
of the plain ViT's on both sets of `bench study` (32 and 64 px, one seed)."""

LLA: dict[str, Any] = {"trunk": "hybrid", "tokens": 100, "num_latents": 32}
"""Light latent attention: 1 grid block and 3 blocks on 100 tokens, then 8 blocks on 32 latents that read them twice."""


def focusvit(size: str, **overrides: Any) -> FocusViTConfig:
    """FocusViT of a size at 224 px: conv stem, 1 grid block, 64 superpixel tokens."""
    return FocusViTConfig(**{**SIZES[size], **overrides})


def vit(size: str, **overrides: Any) -> FocusViTConfig:
    """The plain ViT/16 of a size: linear stem, class token, learned positions, no pooling."""
    return FocusViTConfig(**{**SIZES[size], **PLAIN, **overrides})


def focusvit_64px(**overrides: Any) -> FocusViTConfig:
    """For 64 px images on a CPU: patches of 8 px (8x8 grid), 32 tokens, read by the mean; with the convolutional stem
    and few tokens the best use of a CPU minute.
    """
    small = {
        "image_px": 64, "patch_px": 8, "width": 192, "depth": 6, "heads": 3, "grid_depth": 1, "tokens": 32,
        "readout": "mean", "mlp_ratio": 3.0,
    }  # fmt: skip
    return FocusViTConfig(**{**small, **overrides})


def plain_vit_of(model: FocusViTConfig) -> FocusViTConfig:
    """The plain ViT of the same width, depth, patches and images: linear stem, no pooling."""
    shared = ("image_px", "patch_px", "width", "depth", "heads", "mlp_ratio", "num_classes", "readout")
    return FocusViTConfig(**{name: getattr(model, name) for name in shared}, **PLAIN)
