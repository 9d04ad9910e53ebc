"""What a model costs: parameters, multiply-adds by a counter, time with synchronisation, peak memory."""

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from .groups import freeze
from .inputs import TakesImages
from .model import FocusViT, FocusViTConfig
from .partitions import random_cells
from .slices import CPU_IMAGES, in_slices

Inputs = tuple[Tensor, Tensor | None]


@dataclass(frozen=True, kw_only=True)
class ModelProfile:
    """One row of the cost table. Per image where it says so."""

    parameters: int
    trainable_parameters: int
    weights_bytes: int
    """parameters and buffers in memory"""
    multiply_adds: int
    """of one image, counted while it runs (the "GFLOPs" of ViT papers)"""
    latency_s: float
    """of inference on the batch as this device runs it (on a CPU in slices), median, synchronised"""
    images_per_s: float
    inference_peak_bytes: int
    """weights, inputs and what the forward adds at its highest, with the whole batch at a time; our stems take less
    on a CPU (`slices.stem_images_at_once`)"""
    sliced_peak_bytes: int
    """the same in slices of `slices.CPU_IMAGES` images. Compare models whole with whole, sliced with sliced"""
    training_peak_bytes: int
    """the same for forward, backward and AdamW; the whole batch at a time"""


def example_inputs(config: TakesImages, batch: int, *, device: str = "cpu") -> Inputs:
    """Random images, and random maps (2 x 2 pixels a patch or finer) where the model takes them."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch, 3, *config.image_size), generator=generator, dtype=torch.uint8).to(device)
    if not config.needs_maps or config.tokens is None:
        return images, None
    scale = 2
    while config.num_patches * scale * scale < config.tokens:
        scale *= 2
    height, width = (side * scale for side in config.grid)
    drawn = [torch.from_numpy(random_cells(config.tokens, height, width, i)) for i in range(min(batch, 8))]
    maps = torch.stack([drawn[i % len(drawn)] for i in range(batch)])
    return images, maps.to(torch.uint8 if config.tokens <= 256 else torch.int16).to(device)


def count_multiply_adds(model: nn.Module, *inputs: Tensor | None) -> int:
    """Half of the floating-point operations that torch's counter sees in one forward: matrix products and convolutions.

    Attention runs as plain matrix products meanwhile, because the counter does not know the fused kernel of CPUs.
    """
    model = model.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model(*inputs)
    return counter.get_total_flops() // 2


def time_calls(
    calls: Mapping[str, Callable[[], object]], rounds: int, device: str = "cpu",
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:  # fmt: skip
    """Seconds of each call in each round. Calls take turns, so that a change of the machine meets all of them. One more
    round comes first and is not counted. A GPU is waited for.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            _wait(device)
            start = clock()
            call()
            _wait(device)
            if turn:
                seconds[name].append(clock() - start)
    return seconds


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


def peak_bytes(step: Callable[[], object], device: str = "cpu") -> int:
    """The most bytes of tensors that `step` adds to those alive before it. Run it once before, so that caches are full.

    On a CPU the profiler's record of every allocation; on a GPU the allocator's peak.
    """
    if device != "cpu":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler tells its own stages to the user
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as recorded:
        step()
    assert recorded.profiler is not None and recorded.profiler.kineto_results is not None
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def held_bytes(model: nn.Module, *others: Tensor | None) -> int:
    """Bytes of parameters, buffers and the given tensors."""
    tensors = [*model.parameters(), *model.buffers(), *(x for x in others if x is not None)]
    return sum(x.numel() * x.element_size() for x in tensors)


@contextmanager
def cut_alike(model: nn.Module, images_at_once: int | None) -> Iterator[Callable[..., Tensor]]:
    """The model as a function from inputs to logits that runs `images_at_once` images at a time; None = all of them.
    Our own stems take fewer on a CPU (`slices.stem_images_at_once`).

    A FocusViT would cut the batch as its device likes and a model of another library never does, so what is measured
    of two models is only comparable when both are cut alike.
    """
    own = {part: part.images_at_once for part in model.modules() if isinstance(part, FocusViT)}

    def run(*inputs: Tensor | None) -> Tensor:
        most = images_at_once or max(len(x) for x in inputs if x is not None)
        for part in own:
            part.images_at_once = most
        return in_slices(lambda *given: logits_of(model(*given)), *inputs, most=most)

    try:
        yield run
    finally:
        for part, before in own.items():
            part.images_at_once = before


def logits_of(out: object) -> Tensor:
    """What a classifier gives, Hugging Face's too."""
    logits = getattr(out, "logits", out)
    assert isinstance(logits, Tensor)
    return logits


def inference_peak(
    model: nn.Module, *inputs: Tensor | None, device: str = "cpu", images_at_once: int | None = None
) -> int:
    """Weights, inputs and the highest use of one forward without gradients, cut as `cut_alike` says."""
    model = model.eval()
    with cut_alike(model, images_at_once) as run, torch.no_grad():
        run(*inputs)
        return held_bytes(model, *inputs) + peak_bytes(lambda: run(*inputs), device)


def training_peak(model: nn.Module, *inputs: Tensor | None, device: str = "cpu") -> int:
    """Weights, inputs, AdamW's two moments and the highest use of forward, backward and step."""
    model = model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        training_loss(model, *inputs).backward()
        optimizer.step()

    step()
    optimizer.zero_grad(set_to_none=True)
    moments = [x for state in optimizer.state.values() for x in state.values() if isinstance(x, Tensor)]
    return held_bytes(model, *inputs, *moments) + peak_bytes(step, device)


def training_loss(model: nn.Module, *inputs: Tensor | None) -> Tensor:
    """A cross-entropy of any classifier."""
    logits = logits_of(model(*inputs))
    classes = torch.zeros(logits.shape[0], dtype=torch.long, device=logits.device)
    return nn.functional.cross_entropy(logits.float(), classes)


def profile_models(
    configs: Mapping[str, FocusViTConfig], *, batch: int = 8, rounds: int = 5, device: str = "cpu",
    frozen: tuple[str, ...] = (), clock: Callable[[], float] = time.perf_counter,
) -> dict[str, ModelProfile]:  # fmt: skip
    """All costs of each config on random inputs of `batch` images; forwards are timed in turns. `frozen`: patterns of
    `groups.freeze`.
    """
    models, inputs = {}, {}
    for name, config in configs.items():
        models[name] = FocusViT(config).to(device)
        freeze(models[name], frozen)
        inputs[name] = example_inputs(config, batch, device=device)

    def forward(name: str) -> None:
        with torch.no_grad():
            models[name].eval()(*inputs[name])

    seconds = time_calls({name: partial(forward, name) for name in models}, rounds, device, clock)
    found = {}
    for name, model in models.items():
        latency = statistics.median(seconds[name])
        found[name] = ModelProfile(
            parameters=sum(p.numel() for p in model.parameters()),
            trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
            weights_bytes=held_bytes(model),
            multiply_adds=count_multiply_adds(model, *(None if x is None else x[:1] for x in inputs[name])),
            latency_s=latency,
            images_per_s=batch / latency,
            inference_peak_bytes=inference_peak(model, *inputs[name], device=device),
            sliced_peak_bytes=inference_peak(model, *inputs[name], device=device, images_at_once=CPU_IMAGES),
            training_peak_bytes=training_peak(model, *inputs[name], device=device),
        )
    return found
