"""The models of the GPU tables: FocusViT, plain ViTs of three hands, the controls; real sizes, or toys to rehearse."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from focusvit.model import presets
from focusvit.model.config import FocusViTConfig
from focusvit.model.cost import example_inputs
from focusvit.model.model import FocusViT
from tests.benchmarks.model.controls import control

_TOY = {"image_px": 32, "patch_px": 8, "width": 32, "depth": 4, "heads": 2, "num_classes": 5}


@dataclass(frozen=True)
class Row:
    """A model and what it is given."""

    name: str
    config: FocusViTConfig | None
    library: Callable[[int], nn.Module] | None = None
    px: int = 224

    def build(self, device: str) -> nn.Module:
        model = FocusViT(self.config) if self.config is not None else self.library(self.px)  # type: ignore[misc]
        return model.to(device).eval()

    def inputs(self, batch: int, device: str) -> tuple[Tensor, ...]:
        if self.config is None:
            return (torch.randn(batch, 3, self.px, self.px, device=device),)
        images, maps = example_inputs(self.config, batch, device=device)
        return (images,) if maps is None else (images, maps)

    @property
    def tokens(self) -> int | None:
        """superpixels that must be made for it"""
        return self.config.tokens if self.config is not None and self.config.needs_maps else None


def rows(size: str, px: int, toy: bool) -> list[Row]:
    """All rows of a size at a side; libraries that are absent are left out by whoever builds them."""
    shape: dict = {"num_classes": 1000, "image_px": px} if not toy else _TOY
    if px > 224:
        shape |= {"tokens": 256}
    model = presets.focusvit(size, **({"tokens": 6} if toy else {}), **shape)
    lla = presets.focusvit(size, **{**presets.LLA, **shape, **({"tokens": 8, "num_latents": 4} if toy else {})})
    if px > 224:
        lla = replace(lla, tokens=256, num_latents=64)
    letter, side = size[0].upper(), shape["image_px"]
    found = [
        Row(f"ViT-{letter}/16, Hugging Face", None, lambda side: _hugging_face(size, side, toy), side),
        Row(f"ViT-{letter}/16, timm", None, lambda side: _timm(size, side, toy), side),
        Row(f"FocusViT-{letter}", model),
        Row(f"FocusViT-{letter} with LLA", lla),
        Row(f"ViT-{letter}/16, ours", presets.plain_vit_of(model)),
    ]
    for name in ("uniform_grid", "large_patch", "lower_resolution", "token_merging", "random_regions"):
        try:
            found.append(Row(f"control: {name.replace('_', ' ')}", control(name, model)))
        except ValueError:  # a control that this size does not have, such as half of an odd grid
            continue
    return found


def compiled_rows(size: str, px: int, toy: bool) -> list[Row]:
    """Those worth half a minute of compiling each: no controls; in a rehearsal one of a library and one of ours."""
    found = [row for row in rows(size, px, toy) if not row.name.startswith("control")]
    return [found[0], found[2]] if toy else found


def _hugging_face(size: str, side: int, toy: bool) -> nn.Module:
    library = _imported("transformers")
    shape = presets.SIZES[size] if not toy else {"width": 32, "depth": 4, "heads": 2}
    config = library.ViTConfig(
        hidden_size=shape["width"], num_hidden_layers=shape["depth"], num_attention_heads=shape["heads"],
        intermediate_size=4 * shape["width"], image_size=side, patch_size=8 if toy else 16, num_labels=1000,
    )  # fmt: skip
    config._attn_implementation = "sdpa"
    return library.ViTForImageClassification(config)


def _timm(size: str, side: int, toy: bool) -> nn.Module:
    small = {"patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2} if toy else {}
    return _imported("timm").create_model(f"vit_{size}_patch16_224", num_classes=1000, img_size=side, **small)


def _imported(name: str) -> Any:
    """The library. Raises ImportError also where another one that it imports is broken, as torchvision beside a torch
    that it was not built for."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise
    except Exception as error:
        raise ImportError(f"{name}: {type(error).__name__}: {error}") from error
