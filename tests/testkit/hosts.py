"""Small vision transformers of Hugging Face, timm and torchvision with random weights: name -> maker. 32 px, patches of
8."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

SIDE, PATCH, GRID = 32, 8, 4
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
_SIZES = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64}
_SIZES |= {"image_size": SIDE, "patch_size": PATCH}


def hugging_face(name: str, config: str, **values: object) -> nn.Module:
    import transformers

    return getattr(transformers, name)(getattr(transformers, f"{config}Config")(**{**_SIZES, **values}))


def _siglip(name: str) -> nn.Module:
    import transformers

    text = {
        key: _SIZES[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    }
    return getattr(transformers, name)(transformers.SiglipConfig(text_config=text, vision_config=_SIZES))


def timm_model(name: str, **values: object) -> nn.Module:
    timm = pytest.importorskip("timm")
    small = {"img_size": SIDE, "patch_size": PATCH, "embed_dim": 32, "depth": 4, "num_heads": 2, "num_classes": 5}
    return timm.create_model(name, pretrained=False, **{**small, **values})


def torchvision_model() -> nn.Module:
    models = pytest.importorskip("torchvision.models")
    return models.VisionTransformer(
        image_size=SIDE, patch_size=PATCH, num_layers=4, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=5
    )


def stand_in() -> nn.Module:
    """The parts and names of torchvision's class, for where torchvision is absent."""
    model = nn.Module()
    model.conv_proj = nn.Conv2d(3, 32, PATCH, PATCH)
    model.encoder = nn.Module()
    layers = [nn.TransformerEncoderLayer(32, 2, 64, 0.0, batch_first=True, norm_first=True) for _ in range(4)]
    model.encoder.layers = nn.Sequential(*layers)
    model.heads = nn.Linear(32, 5)
    model.class_token = nn.Parameter(torch.randn(1, 1, 32))

    def forward(x: torch.Tensor) -> torch.Tensor:
        x = model.conv_proj(x).flatten(2).transpose(1, 2)
        x = torch.cat([model.class_token.expand(x.shape[0], -1, -1), x], 1)
        return model.heads(model.encoder.layers(x)[:, 0])

    model.forward = forward
    return model


HUGGING_FACE: dict[str, Callable[[], nn.Module]] = {
    "ViTForImageClassification": lambda: hugging_face("ViTForImageClassification", "ViT"),
    "ViTModel": lambda: hugging_face("ViTModel", "ViT"),
    "DeiTForImageClassificationWithTeacher": lambda: hugging_face("DeiTForImageClassificationWithTeacher", "DeiT"),
    "Dinov2Model": lambda: hugging_face("Dinov2Model", "Dinov2"),
    "Dinov2ForImageClassification": lambda: hugging_face("Dinov2ForImageClassification", "Dinov2"),
    "Dinov2WithRegistersForImageClassification": lambda: hugging_face(
        "Dinov2WithRegistersForImageClassification", "Dinov2WithRegisters", num_register_tokens=3
    ),
    "DINOv3ViTModel": lambda: hugging_face("DINOv3ViTModel", "DINOv3ViT", num_register_tokens=3, pos_embed_jitter=None),
    "CLIPVisionModel": lambda: hugging_face("CLIPVisionModel", "CLIPVision"),
    "SiglipVisionModel": lambda: hugging_face("SiglipVisionModel", "SiglipVision"),
    "SiglipForImageClassification": lambda: _siglip("SiglipForImageClassification"),
    "IJepaForImageClassification": lambda: hugging_face("IJepaForImageClassification", "IJepa"),
    "ViTMSNForImageClassification": lambda: hugging_face("ViTMSNForImageClassification", "ViTMSN"),
}
TIMM: dict[str, Callable[[], nn.Module]] = {
    "timm vit": lambda: timm_model("vit_tiny_patch16_224"),
    "timm vit, mean of patches": lambda: timm_model("vit_tiny_patch16_224", global_pool="avg"),
    "timm vit, any size": lambda: timm_model("vit_tiny_patch16_224", dynamic_img_size=True),
    "timm vit, padded": lambda: timm_model("vit_tiny_patch16_224", dynamic_img_size=True, dynamic_img_pad=True),
    "timm deit distilled": lambda: timm_model("deit_tiny_distilled_patch16_224"),
    "timm deit3": lambda: timm_model("deit3_small_patch16_224"),
    "timm dinov2 with registers": lambda: timm_model("vit_small_patch14_reg4_dinov2"),
    "timm dinov3": lambda: timm_model("vit_small_patch16_dinov3"),
    "timm eva02": lambda: timm_model("eva02_tiny_patch14_224"),
    "timm siglip": lambda: timm_model("vit_base_patch16_siglip_224"),
    "timm clip": lambda: timm_model("vit_base_patch16_clip_224"),
}
HOSTS = {**HUGGING_FACE, **TIMM, "torchvision": torchvision_model, "torchvision's parts": stand_in}
ROTARY = {"DINOv3ViTModel", "timm dinov3", "timm eva02"}


def make(name: str) -> nn.Module:
    """The host in evaluation, every parameter random: libraries start heads at zero, where every comparison would
    hold."""
    torch.manual_seed(0)
    model = HOSTS[name]().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


def save_host(folder: Path, name: str) -> nn.Module:
    """The host of `make`, saved as its library downloads it; returns it."""
    model = make(name)
    if name in TIMM:
        said = model.pretrained_cfg
        folder.mkdir(parents=True)
        save_file(model.state_dict(), folder / "model.safetensors")
        config: dict = {"architecture": said["architecture"], "num_classes": 5, "global_pool": model.global_pool}
        config["pretrained_cfg"] = {"mean": said["mean"], "std": said["std"], "crop_pct": 0.9}
        config["pretrained_cfg"]["input_size"] = [3, SIDE, SIDE]
        config["model_args"] = {key: value for key, value in model._model_args.items() if key != "num_classes"}
        (folder / "config.json").write_text(json.dumps(config))
        return model
    model.save_pretrained(folder)
    look = {"image_mean": MEAN, "image_std": STD, "size": {"height": SIDE, "width": SIDE}}
    (folder / "preprocessor_config.json").write_text(json.dumps(look))
    return model


def answer(model: nn.Module, pixels: torch.Tensor, **kwargs: object) -> torch.Tensor:
    """Logits, else features, of whatever the library returns."""
    out = model(pixels, **kwargs)
    for name in ("logits", "pooler_output", "last_hidden_state"):
        if getattr(out, name, None) is not None:
            return torch.as_tensor(getattr(out, name))
    return out


def without_positions(model: nn.Module) -> nn.Module:
    """Learned position embeddings set to zero, so that equal patches are equal tokens."""
    found = [p for name, p in model.named_parameters() if "pos" in name and "embed" in name]
    for parameter in found:
        nn.init.zeros_(parameter)
    return model
