"""What `bench model` compares: FocusViT, the plain ViT of Hugging Face and our own, and the controls."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from focusvit.model import presets
from focusvit.model.cost import example_inputs
from focusvit.model.model import FocusViT, FocusViTConfig
from tests.benchmarks.model.controls import control

PEER = "ViT-S/16, Hugging Face (SDPA)"
TIMM = "ViT-S/16, timm"
DEFAULT = "FocusViT-S"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A model to build, and what it is given."""

    config: FocusViTConfig | None
    """None is the plain ViT of a library."""
    library: Callable[[str, int], nn.Module] | None = None
    """builds that ViT of a size for images of a side; by default `hugging_face_vit`"""

    def build(self, size: str, image_px: int) -> nn.Module:
        """Raises ImportError when the library is not installed."""
        if self.config is not None:
            return FocusViT(self.config)
        return (self.library or hugging_face_vit)(size, image_px)

    def inputs(self, batch: int, image_px: int) -> tuple[Tensor, ...]:
        """Libraries' models take normalised floats; ours takes bytes and normalises them inside."""
        if self.config is None:
            return (torch.randn(batch, 3, image_px, image_px, generator=torch.Generator().manual_seed(0)),)
        images, maps = example_inputs(self.config, batch)
        return (images,) if maps is None else (images, maps)

    @property
    def needs_superpixels(self) -> bool:
        return self.config is not None and self.config.needs_maps


def hugging_face_vit(size: str, image_px: int) -> nn.Module:
    """ViTForImageClassification with random weights. Raises ImportError without transformers."""
    from transformers import ViTConfig, ViTForImageClassification

    shape = presets.SIZES[size]
    config = ViTConfig(
        hidden_size=shape["width"], num_hidden_layers=shape["depth"], num_attention_heads=shape["heads"],
        intermediate_size=4 * shape["width"], image_size=image_px, patch_size=16,
    )  # fmt: skip
    config.num_labels = 1000
    config._attn_implementation = "sdpa"
    return ViTForImageClassification(config)


def timm_vit(size: str, image_px: int) -> nn.Module:
    """timm's VisionTransformer with random weights. Raises ImportError without timm."""
    import timm

    model: nn.Module = timm.create_model(f"vit_{size}_patch16_224", num_classes=1000, img_size=image_px)
    return model


def main_variants(size: str) -> dict[str, Variant]:
    """The default, its trunk in other forms, the plain ViTs and the controls at the same number of tokens."""
    model = presets.focusvit(size)
    configs: dict[str, FocusViTConfig | None] = {
        PEER: None,
        "ViT-S/16, ours": presets.vit(size),
        DEFAULT: model,
        "FocusViT-S, LLA hybrid, K = 100": presets.focusvit(size, **presets.LLA),
        "FocusViT-S, no grid block": replace(model, **presets.LEAN),
        "FocusViT-S, linear stem": replace(model, stem="linear"),
        "FocusViT-S, linear stem, no grid block": replace(model, stem="linear", grid_depth=0),
        "control: uniform grid, K = 64": control("uniform_grid", model),
        "control: random regions, K = 64": control("random_regions", model),
        "control: token merging to 64": control("token_merging", model),
        "control: patch 32": control("large_patch", model),
        "control: 128 px image": control("lower_resolution", model),
    }
    variants = {name: Variant(config=config) for name, config in configs.items()}
    variants[TIMM] = Variant(config=None, library=timm_vit)
    return {name.replace("-S", f"-{size[0].upper()}"): variant for name, variant in variants.items()}


def sweep_variants(size: str) -> dict[str, Variant]:
    """K x grid depth x trunk around the default."""
    found = {}
    for tokens in (49, 64, 100):
        for grid_depth in (0, 1, 2):
            config = presets.focusvit(size, tokens=tokens, grid_depth=grid_depth)
            found[f"K {tokens}, d0 {grid_depth}, full"] = Variant(config=config)
    for trunk, latents in (
        ("hybrid", 16),
        ("hybrid", 32),
        ("hybrid", 64),
        ("latent", 32),
        ("kv_pool", 32),
        ("gather", 32),
    ):
        config = presets.focusvit(size, tokens=100, trunk=trunk, num_latents=latents)
        found[f"K 100, d0 1, {trunk}, M {latents}"] = Variant(config=config)
    config = presets.focusvit(size, tokens=64, trunk="window")
    found["K 64, d0 1, window 9"] = Variant(config=config)
    config = presets.focusvit(size, tokens=None, position="pooled", trunk="hybrid", num_latents=32)
    found["no pooling (196), d0 1, hybrid, M 32"] = Variant(config=config)
    return found


def large_image_variants(size: str, image_px: int) -> dict[str, Variant]:
    """Attention forms on all patches of a large image, and with superpixel pooling."""
    patches = (image_px // 16) ** 2
    configs = {}
    for trunk in ("full", "latent", "hybrid", "kv_pool", "gather"):
        configs[f"{patches} patches, {trunk}"] = presets.focusvit(
            size, image_px=image_px, tokens=None, position="pooled", grid_depth=0, num_latents=64, trunk=trunk
        )
    for trunk in ("full", "hybrid"):
        configs[f"256 superpixels, {trunk}"] = presets.focusvit(
            size, image_px=image_px, tokens=256, grid_depth=1, num_latents=64, trunk=trunk
        )
    return {name: Variant(config=config) for name, config in configs.items()}
