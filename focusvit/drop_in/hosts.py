"""Where pixels enter, blocks lie and keys are made in a vision transformer of another library.

Found by structure, not by class, so that subclasses and forks work too and no library is imported: a convolution whose
stride is its kernel makes the patches, and one list of blocks holds one attention each. Models whose blocks count on
the patch grid (relative positions, windows, dropped patches) are refused here, before any work.
"""

import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

Mask = Literal["attention_mask", "attn_mask", "key_padding_mask"]
"""the argument through which an attention takes what is added to its logits: Hugging Face, timm, torchvision"""


@dataclass(frozen=True)
class Host:
    """The parts of a model that pooling touches."""

    patches: nn.Conv2d
    """its input is the batch of pixels, as the model uses them (timm may have padded them)"""
    blocks: list[nn.Module]
    attentions: list[nn.Module]
    """of each block"""


def find_host(model: nn.Module) -> Host:
    """Raises TypeError, in one sentence with what to use instead, for a model that cannot be patched."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"a torch model is wanted, not {type(model).__name__}")
    name = f"{type(model).__module__}.{type(model).__name__}"
    if hasattr(model, "text_model") and hasattr(model, "vision_model"):
        raise TypeError(f"{name} has a tower for text and one for images: patch its `vision_model`")
    lists = list(_block_lists(model))
    patches = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == m.stride and m.stride[0] > 1]
    if not lists or not patches:
        raise TypeError(
            f"{name} cannot be patched: it has no list of blocks with one attention each behind a convolution that "
            f"makes patches. Patch the vision transformer inside it, or load its weights (focusvit.weights.pretrained)"
        )
    if len(lists) > 1:
        raise TypeError(
            f"{name} cannot be patched: its blocks come in {len(lists)} stages of other sizes (windows, pyramids). "
            f"Use a ViT with one row of blocks, such as DINOv2, DeiT or CLIP"
        )
    _refuse_what_counts_patches(model, name)
    return Host(patches[0], lists[0], [next(_attentions(block)) for block in lists[0]])


def mask_of(attention: nn.Module) -> Mask:
    """The argument that takes what is added to the logits of this attention. Raises TypeError where there is none."""
    known = arguments(attention)
    for name in ("attention_mask", "key_padding_mask", "attn_mask"):
        if name in known:
            return name  # type: ignore[return-value]
    raise TypeError(
        f"the attention {type(attention).__name__} takes no mask, so its keys cannot carry the size of a superpixel: "
        f"use a newer version of its library"
    )


def arguments(attention: nn.Module) -> tuple[str, ...]:
    """Names of what its forward takes, in order."""
    return tuple(inspect.signature(attention.forward).parameters)


def first_norm(block: nn.Module) -> nn.Module:
    """The norm that the input of a pre-norm block meets first; the block itself when it has none."""
    return next((m for m in block.modules() if isinstance(m, nn.LayerNorm) or type(m).__name__ == "RMSNorm"), block)


def pixel_statistics(model: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """(mean, std) of the normalisation that the model's own record states; None where nothing states it.

    timm keeps them in `pretrained_cfg`; Hugging Face in `preprocessor_config.json` of the folder that the model came
    from.
    """
    record = getattr(model, "pretrained_cfg", None) or {}
    if "mean" in record and "std" in record:
        return tuple(record["mean"]), tuple(record["std"])
    folder = str(getattr(getattr(model, "config", None), "_name_or_path", "") or "")
    file = Path(folder, "preprocessor_config.json") if folder else None
    if file and file.is_file():
        told = json.loads(file.read_text())
        if "image_mean" in told and "image_std" in told:
            return tuple(told["image_mean"]), tuple(told["image_std"])
    return None


def _block_lists(model: nn.Module) -> Iterator[list[nn.Module]]:
    for module in model.modules():
        if isinstance(module, (nn.ModuleList, nn.Sequential, nn.ModuleDict)):
            blocks = list(module.values()) if isinstance(module, nn.ModuleDict) else list(module)
            if blocks and all(len(list(_attentions(block))) == 1 and block is not module for block in blocks):
                if not any(next(_attentions(block)) is block for block in blocks):
                    yield blocks


def _attentions(module: nn.Module) -> Iterator[nn.Module]:
    for part in module.modules():
        names = {name for name, _ in part.named_children()}
        if isinstance(part, nn.MultiheadAttention) or {"q_proj", "k_proj", "v_proj"} <= names:
            yield part
        elif ({"query", "key", "value"} <= names or "qkv" in names) and hasattr(part, "forward"):
            yield part


def _refuse_what_counts_patches(model: nn.Module, name: str) -> None:
    why = ""
    for part in model.modules():
        told = {*vars(part), *part._parameters, *part._buffers, *part._modules}
        found = {key for key in told if getattr(part, key, None) is not None}
        if any(key.startswith(("relative_position", "rel_pos", "shared_rel_pos")) for key in found):
            why = "its attention adds a bias for each pair of patches"
        elif getattr(part, "window_size", 0) not in (0, None, (0, 0)):
            why = "its blocks attend in windows of patches"
        elif hasattr(part, "random_masking") or not _passes(getattr(part, "patch_drop", None)):
            why = "it drops patches"
        elif getattr(part, "rope_mixed", False):
            why = "its rotary positions differ between blocks and heads"
    if why:
        raise TypeError(
            f"{name} cannot be patched: {why}, which has no meaning after patches are pooled. Use a ViT with learned "
            f"or rotary positions, such as DINOv2, DINOv3, DeiT, CLIP or SigLIP"
        )


def _passes(module: nn.Module | None) -> bool:
    return module is None or isinstance(module, nn.Identity)


def implementation(attention: Any) -> str:
    """The attention implementation that a Hugging Face module is set to; '' elsewhere."""
    return str(getattr(getattr(attention, "config", None), "_attn_implementation", "") or "")
