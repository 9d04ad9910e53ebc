"""What a training will take, before it starts: steps, tokens, FLOPs, memory, time at a throughput. Needs no GPU."""

import json
from typing import TYPE_CHECKING

from focusvit.config_json import flatten, to_json
from focusvit.train_config import TrainConfig
from pipeline.dataset import Dataset

if TYPE_CHECKING:
    from torch import Tensor

    from focusvit.model import FocusViT


def describe(config: TrainConfig, data: Dataset, run_dir: str, workers: str, full: bool = False) -> str:
    """The plan as text; `full` adds the resolved config, the parameters, memory and the time at given throughputs."""
    split = data.split(config.data.train_split)
    steps = config.num_steps(split.num_samples)
    eval_samples = data.split(config.data.eval_split).num_samples
    tokens = config.model.tokens or config.model.num_patches
    lines = [
        f"data      {data.uri}: {split.num_samples} to train, {eval_samples} to score, {len(data.classes)} classes",
        f"run       {run_dir}, workers {workers}",
        f"steps     {steps} of {config.global_batch} samples = {config.epochs:g} epochs, "
        f"{len(config.milestones(split.num_samples, config.eval_every_epochs))} scorings",
        f"model     {config.model.image_px} px, {config.model.num_patches} patches -> {tokens} tokens, "
        f"width {config.model.width}, depth {config.model.depth}",
    ]
    if config.init_from:
        lines.append(f"from      {config.init_from}")
    if full:
        lines += _costs(config, split.num_samples)
        lines += [f"config    {key} = {json.dumps(value)}" for key, value in flatten(to_json(config)).items()]
    return "\n".join(lines) + "\n"


def _costs(config: TrainConfig, num_samples: int) -> list[str]:
    from focusvit.model import FocusViT
    from focusvit.profile import count_multiply_adds, example_inputs

    model = FocusViT(config.model)
    parameters = sum(p.numel() for p in model.parameters())
    inputs = example_inputs(config.model, 2)
    multiply_adds = count_multiply_adds(model, *inputs) / 2
    an_image = _kept_for_backward(model, inputs) / 2
    state = parameters * 4 * (4 if config.optim.name == "adamw" else 3) + (parameters * 4 if config.ema_decay else 0)
    total = config.num_steps(num_samples) * config.global_batch
    hours = ", ".join(f"{rate} img/s: {total / rate / 3600:.1f} h" for rate in (100, 1000, 10000))
    return [
        f"params    {parameters / 1e6:.2f} M; weights, gradients and optimizer {state / 1e9:.2f} GB on each worker",
        f"FLOPs     {multiply_adds / 1e9:.3f} G multiply-adds an image forward, about 3 times that in training",
        f"memory    about {an_image / 1e6:.0f} MB kept for backward for each image of a micro-batch (fp32)",
        f"time      {total} samples; {hours}",
    ]


def _kept_for_backward(model: "FocusViT", inputs: "tuple[Tensor, Tensor | None]") -> int:
    """Bytes that one forward keeps for its backward, each storage counted once, weights left out."""
    import torch

    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, tuple[Tensor, int]] = {}

    def keep(tensor: "Tensor") -> "Tensor":
        place = tensor.untyped_storage().data_ptr()
        if place not in weights:
            kept[place] = (tensor, tensor.untyped_storage().nbytes())  # held, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.train()(*inputs)
    return sum(size for _, size in kept.values())
