"""Names of ViT weights in other libraries, translated to timm's (which FocusViT uses for the parts they share)."""

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

_HF_BLOCK = {
    "layernorm_before": "norm1", "layernorm_after": "norm2",
    "attention.output.dense": "attn.proj", "attention.o_proj": "attn.proj",
    "intermediate.dense": "mlp.fc1", "output.dense": "mlp.fc2", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
}  # fmt: skip
_HF_TOP = {
    "embeddings.cls_token": "cls_token", "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj", "layernorm": "norm", "classifier": "head",
}  # fmt: skip
_TORCHVISION_BLOCK = {
    "ln_1": "norm1", "ln_2": "norm2", "self_attention.in_proj": "attn.qkv", "self_attention.out_proj": "attn.proj",
    "mlp.0": "mlp.fc1", "mlp.3": "mlp.fc2", "mlp.linear_1": "mlp.fc1", "mlp.linear_2": "mlp.fc2",
}  # fmt: skip
_TORCHVISION_TOP = {
    "class_token": "cls_token", "encoder.pos_embedding": "pos_embed", "conv_proj": "patch_embed.proj",
    "encoder.ln": "norm", "heads.head": "head", "heads": "head",
}  # fmt: skip
_QKV = {"query": 0, "key": 1, "value": 2, "q_proj": 0, "k_proj": 1, "v_proj": 2}


def to_timm_names(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Weights under timm's names, and for each the name it had (three names for a joined query, key, value).

    Knows Hugging Face ViT (names before and since version 5), torchvision VisionTransformer and timm. A name that
    no rule knows keeps itself, so that the caller can report it.
    """
    rename = _rules(weights)
    found: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    parts: dict[str, dict[int, tuple[str, Tensor]]] = {}
    for name, value in weights.items():
        target = rename(name)
        third = re.fullmatch(r"(.*\.attn)\.third(\d)\.(weight|bias)", target)
        if third:
            parts.setdefault(f"{third[1]}.qkv.{third[3]}", {})[int(third[2])] = (name, value)
        else:
            found[target], origin[target] = value, name
    for target, thirds in parts.items():
        names = [thirds[i][0] for i in sorted(thirds)]
        if len(thirds) < 3:  # keep what there is under its own names: it will be reported
            for name, value in thirds.values():
                found[name], origin[name] = value, name
            continue
        found[target] = torch.cat([thirds[i][1] for i in range(3)])
        origin[target] = " + ".join(names)
    return found, origin


def _rules(weights: Mapping[str, Tensor]) -> Callable[[str], str]:
    if any("encoder_layer_" in name or name == "conv_proj.weight" for name in weights):
        return _from_torchvision
    if any("embeddings.patch_embeddings" in name for name in weights):
        return _from_hugging_face
    return lambda name: name


def _from_torchvision(name: str) -> str:
    block = re.fullmatch(r"encoder\.layers\.encoder_layer_(\d+)\.(.+?)[._](weight|bias)", name)
    if block and block[2] in _TORCHVISION_BLOCK:
        return f"blocks.{block[1]}.{_TORCHVISION_BLOCK[block[2]]}.{block[3]}"
    return _top(name, _TORCHVISION_TOP)


def _from_hugging_face(name: str) -> str:
    inner = name.removeprefix("vit.").removeprefix("encoder.")
    block = re.fullmatch(r"layers?\.(\d+)\.(.+)\.(weight|bias)", inner)
    if block:
        number, part, kind = block.groups()
        third = _QKV.get(part.rsplit(".", 1)[-1]) if part.startswith("attention.") else None
        if third is not None:
            return f"blocks.{number}.attn.third{third}.{kind}"
        if part in _HF_BLOCK:
            return f"blocks.{number}.{_HF_BLOCK[part]}.{kind}"
        return name
    return _top(inner, _HF_TOP, name)


def _top(name: str, names: Mapping[str, str], otherwise: str | None = None) -> str:
    stem, _, kind = name.rpartition(".")
    if name in names:
        return names[name]
    return f"{names[stem]}.{kind}" if stem in names else otherwise or name
