"""What a training will take, before it starts: steps, tokens, FLOPs, memory, time at a throughput. Needs no GPU."""

import json
from typing import TYPE_CHECKING

from focusvit.runs.config_json import flatten, to_json
from focusvit.train.config import TrainConfig
from pipeline.shards.dataset import Dataset
from pipeline.shards.overlap import shared_images

from .launch import LaunchConfig, worker_range

if TYPE_CHECKING:
    from torch import Tensor

    from focusvit.drop_in.host_model import Model


_GPU, _SHARE = "H100", 0.3  # of a rate that nobody has measured: an assumption, and said to be one


def describe(config: TrainConfig, data: Dataset, launch: LaunchConfig, loader_s: float | None = None) -> str:
    """The plan as text; a dry run adds the resolved config, the parameters, tokens, FLOPs, memory and the time.

    `loader_s`: CPU seconds that loading a sample takes, for the cores that feed a GPU.
    """
    split = data.split(config.data.train_split)
    steps = config.num_steps(split.num_samples)
    eval_samples = data.split(config.data.eval_split).num_samples
    tokens = config.model.tokens or config.model.num_patches
    lines = [
        f"data      {data.uri}: {split.num_samples} to train, {eval_samples} to score, {len(data.classes)} classes",
        f"run       {launch.run_dir}, workers {launch.workers}",
        f"steps     {steps} of {config.global_batch} samples = {config.epochs:g} epochs, "
        f"{len(config.milestones(split.num_samples, config.eval_every_epochs))} scorings",
        f"model     {config.model.image_px} px, {config.model.num_patches} patches -> {tokens} tokens, "
        f"width {config.model.width}, depth {config.model.depth}",
    ]
    if config.init_from:
        lines.append(f"from      {config.init_from}")
    warmup = config.optim.warmup_epochs
    if config.epochs <= warmup:
        lines.append(
            f"warning   the warm-up takes {warmup:g} epochs and the run {config.epochs:g}: the learning rate rises to "
            f"the end, to {100 * config.epochs / warmup:.0f} % of optim.lr, and never falls. "
            "Set a smaller --optim.warmup-epochs."
        )
    if len(data.classes) == 1:
        lines.append(
            f"warning   there is one class ('{data.classes[0]}'), so every answer is right and nothing is learned"
        )
    both = {config.data.train_split, config.data.eval_split}
    lines += [f"warning   {sentence}" for sentence in shared_images(data.uri, sorted(both))]
    if launch.dry_run:
        workers = worker_range(launch.workers)[1]
        lines += _costs(config, split.num_samples, workers, launch.images_per_s, loader_s)
        lines += [f"config    {key} = {json.dumps(value)}" for key, value in flatten(to_json(config)).items()]
    return "\n".join(lines) + "\n"


def _costs(
    config: TrainConfig, num_samples: int, workers: int, rate: float | None, loader_s: float | None
) -> list[str]:
    from focusvit.drop_in.host_model import build_model
    from focusvit.train.flops import step_flops

    model = build_model(config.model)
    parameters = sum(p.numel() for p in model.parameters())
    state, an_image = memory_of(config, model)
    at_a_time = config.micro_batch or -(-config.global_batch // workers)
    at_a_time = min(at_a_time, -(-config.global_batch // workers))
    total = config.num_steps(num_samples) * config.global_batch
    budgets = config.token_budgets or (config.model.tokens,)
    flops = step_flops(model, budgets)
    a_sample = sum(flops.values()) / len(flops)  # budgets are drawn equally often
    tokens = sum(k or config.model.num_patches for k in budgets) / len(budgets)
    hours = ", ".join(f"{r:g} img/s: {total / r / 3600:.1f} h" for r in ((rate,) if rate else (100, 1000, 10000)))
    return [
        f"params    {parameters / 1e6:.2f} M; weights, gradients and optimizer {state / 1e9:.2f} GB on each worker",
        f"tokens    {tokens:g} an image, {total * tokens:.3g} in the run",
        f"FLOPs     {a_sample / 6e9:.3f} G multiply-adds an image forward, three times that in training; "
        f"{a_sample * total:.3g} FLOP in the run",
        f"memory    about {an_image / 1e6:.0f} MB kept for backward for each image of a micro-batch (fp32); "
        f"{(state + an_image * at_a_time) / 1e9:.1f} GB on each worker with {at_a_time} images at a time",
        f"time      {total} samples; {hours}",
        *([] if loader_s is None else [feeding(loader_s, a_sample, rate and rate / workers)]),
    ]


def feeding(loader_s: float, flops: float, rate: float | None) -> str:
    """How many cores feed one GPU: `loader_s` CPU seconds a sample here, `flops` of a sample's training step, `rate`
    images a second of one GPU; None = what a share of a data sheet gives.
    """
    from focusvit.train.flops import data_sheet

    said = "as --images-per-s says"
    if rate is None:
        rate = _SHARE * (data_sheet(_GPU) or 0) * 1e12 / flops
        said = f"its FLOPs at {100 * _SHARE:.0f} % of an {_GPU}'s data sheet, measured on none"
    return (
        f"loader    {1e3 * loader_s:.2f} ms of a core of this machine for a sample; a GPU that takes {rate:.0f} img/s "
        f"({said}) needs {rate * loader_s:.1f} such cores for its data.loader_workers"
    )


def memory_of(config: TrainConfig, model: "Model | None" = None) -> tuple[float, float]:
    """Bytes of weights, gradients and optimizer on a worker, and bytes that one image keeps for its backward (fp32)."""
    from focusvit.drop_in.host_model import build_model
    from focusvit.model.cost import example_inputs

    model = model or build_model(config.model)
    copies = (4 if config.optim.name == "adamw" else 3) + (1 if config.ema_decay else 0)
    state = 4 * copies * sum(p.numel() for p in model.parameters())
    return state, _kept_for_backward(model, example_inputs(config.model, 2)) / 2


def _kept_for_backward(model: "Model", inputs: "tuple[Tensor, Tensor | None]") -> int:
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
