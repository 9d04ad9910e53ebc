"""The optimizer and its schedule. The learning rate is a pure function of the samples seen, so nothing needs saving."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from focusvit.model.groups import check_patterns, lr_scale

from .config import OptimConfig


def lr_share(samples_seen: int, warmup_samples: float, total_samples: int, final_share: float) -> float:
    """The factor on the peak rate after `samples_seen`: linear warm-up, then half a cosine down to `final_share`."""
    if samples_seen < warmup_samples:
        return samples_seen / warmup_samples
    done = (samples_seen - warmup_samples) / max(1.0, total_samples - warmup_samples)
    return final_share + (1 - final_share) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _depths(model: nn.Module) -> tuple[dict[int, int], int]:
    """({id of a weight: its layer}, the layer of the head): 0 for what stands before the blocks in the order of
    registration, which is that of use; 1.. for the blocks; the head's for everything after them."""
    blocks: Iterable[nn.Module] = getattr(model, "blocks", ())
    depths = {id(p): number for number, block in enumerate(blocks, 1) for p in block.parameters()}
    top, passed = max(depths.values(), default=0) + 1, not depths
    for parameter in model.parameters():
        passed = passed or id(parameter) in depths
        depths.setdefault(id(parameter), top if passed else 0)
    return depths, top


def decayed(model: nn.Module) -> set[str]:
    """The names of weights that decay: matrices that features are multiplied with.

    By kind, not by name: what a module holds beside them (class token, positions, latent queries, sharpness) stands for
    itself, and decay would only shrink it.
    """
    return {
        f"{name}.weight".removeprefix(".")
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d)) and module.weight.squeeze().ndim > 1
    }


def parameter_groups(model: nn.Module, config: OptimConfig) -> list[dict]:
    """Groups with `lr_scale` and `weight_decay`, of what moves.

    Raises:
        ValueError: a pattern of `lr_scales` that matches no weight.
    """
    scales = config.scales()
    check_patterns(model, scales)
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    depths, top = _depths(model)
    groups: dict[tuple[float, float], dict] = {}
    decays = decayed(model)
    for name, parameter in named:
        decay = config.weight_decay if name in decays else 0.0
        scale = config.layer_decay ** (top - depths[id(parameter)])
        scale *= lr_scale(name, scales)
        group = groups.setdefault((decay, scale), {"params": [], "weight_decay": decay, "lr_scale": scale})
        group["params"].append(parameter)
    return list(groups.values())


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW (fused where torch offers it) or SGD with Nesterov momentum."""
    groups = parameter_groups(model, config)
    if config.name == "sgd":
        momentum = config.momentum
        sgd = torch.optim.SGD(groups, lr=config.lr, momentum=momentum, nesterov=momentum > 0, fused=True)
        for group in sgd.param_groups if momentum else ():
            for p in group["params"]:  # torch would make it on the first step, unfilled when that one is skipped
                sgd.state[p]["momentum_buffer"] = torch.zeros_like(p, requires_grad=False)
        return sgd
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group its share of `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
