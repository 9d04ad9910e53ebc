"""`focusvit replay DUMP`: run a step that was not finite once more and say where it broke."""

import re
import sys
from typing import Any

import torch
from torch import Tensor, nn

from focusvit.choices import pick_device
from focusvit.data.batch import Batch
from focusvit.data.order import key_of
from focusvit.distill.logits import Teacher
from focusvit.drop_in.host_model import build_model
from focusvit.options import ReplayConfig
from focusvit.runs.checkpoint import fill, load_weights
from focusvit.runs.config_json import from_json
from focusvit.runs.sealed_json import read_sealed
from pipeline.commandline import parse
from pipeline.errors import DataError, UsageError
from pipeline.io import storage
from pipeline.io.json_text import json_text

from .config import TrainConfig
from .session import step_options
from .step import losses_of


def main(argv: list[str]) -> int:
    config = parse(ReplayConfig, argv, prog="focusvit replay")
    findings = replay(storage.resolve(config.dump), config.rank, pick_device(config.device))
    if config.json:
        sys.stdout.write(json_text(findings) + "\n")
        return 0
    where = findings["first_module"] or "no module's output"
    sys.stdout.write(
        f"replayed the step at {findings['samples_seen']} samples, rank {config.rank}: loss {findings['loss']}; "
        f"first not finite: {where}; "
        f"parameters with such gradients: {', '.join(findings['parameters'][:5]) or 'none'}; "
        f"samples with such losses: {findings['sample_ids'] or 'none'}\n"
    )
    if findings["teacher_left_out"]:
        sys.stdout.write(f"without the teacher, which could not be read: {findings['teacher_left_out']}\n")
    return 0


def replay(uri: str, rank: int = 0, device: str = "cpu") -> dict[str, Any]:
    """The findings: loss, first module and parameters and samples that are not finite. `UsageError` without a dump.

    The step is the training's: its micro-batches, draws and teacher. `teacher_left_out` says why one could not be read.
    """
    if not storage.exists(storage.join(uri, "dump.json")):
        raise UsageError(f"{uri} is no dump of a training step (dump.json is missing). They lie in RUN/dumps/.")
    facts = read_sealed(storage.join(uri, "dump.json"))
    ranks = sorted(int(found[1]) for name in storage.list_names(uri) if (found := re.match(r"batch-(\d+)\.", name)))
    if rank not in ranks:
        raise UsageError(
            f"{uri} has no batch of rank {rank}; --rank takes one of the ranks {', '.join(map(str, ranks))}."
        )
    config = from_json(TrainConfig, facts["config"], f"{uri}: config")
    model = build_model(config.model).to(device).train()
    fill(model, load_weights(uri), uri)
    tensors: dict[str, Any] = dict(load_weights(uri, f"batch-{rank}.safetensors"))
    tensors.pop("valid", None)  # of a dump of before: no sample is filled in any more
    batch = Batch(**tensors, num_tokens=facts["num_tokens"]).to(device)
    first: list[str] = []

    def look(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not torch.isfinite(output).all():
                first.append(name)

        return hook

    for name, module in model.named_modules():
        module.register_forward_hook(look(name or "model"))
    if config.label_free:
        raise UsageError(f"{uri} is a step that learned a teacher's features; only steps with labels can be replayed.")
    teacher, left_out = _teacher(config, device)
    torch.manual_seed(key_of("step", config.seed, facts["samples_seen"], rank))

    def taught(part: Batch) -> Tensor:
        assert teacher is not None
        wanted = teacher(part)
        look("teacher")(model, part, wanted)
        return wanted

    options = step_options(config, torch.device(device), facts["world_size"], taught if teacher else None)
    by_part = []
    for part in batch.split(options.micro_batch):
        _, losses = losses_of(model, part, options)
        (losses.sum() * (options.world_size / options.global_batch)).backward()
        by_part.append(losses.detach())
    losses = torch.cat(by_part)
    return {
        "samples_seen": facts["samples_seen"],
        "loss": float(losses.mean()),
        "first_module": first[0] if first else None,
        "parameters": [n for n, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()],
        "sample_ids": batch.sample_ids[~torch.isfinite(losses)].tolist(),
        "teacher_left_out": left_out,
    }


def _teacher(config: TrainConfig, device: str) -> tuple[Teacher | None, str | None]:
    """(the teacher of the training, why there is none though the training had one)."""
    if not config.distill.teacher:
        return None, None
    try:
        return Teacher(config.distill, None, config.data.image_px, torch.device(device)), None
    except (UsageError, DataError, OSError) as error:
        return None, str(error)
