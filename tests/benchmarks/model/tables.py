"""The tables of `bench model`. Variants take turns; ratios are medians over rounds of paired times."""

import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from focusvit.model.cost import (
    count_multiply_adds,
    inference_peak,
    logits_of,
    time_calls,
    training_loss,
    training_peak,
)
from focusvit.model.model import FocusViT
from focusvit.model.pooling import SuperpixelPooling
from focusvit.model.presets import SIZES
from focusvit.model.regions import measure_regions, overlap_matrix
from focusvit.model.slices import CPU_IMAGES, STEM_IMAGES, in_slices
from focusvit.train.compiling import lead_around_spaces
from tests.benchmarks.model.config import BenchConfig
from tests.benchmarks.model.variants import PEER, Variant, large_image_variants, main_variants, sweep_variants
from tests.benchmarks.report import Table


def build(variants: dict[str, Variant], config: BenchConfig, image_px: int = 224) -> dict[str, nn.Module]:
    """The models, without those whose library is absent."""
    torch.manual_seed(0)
    models = {}
    for name, variant in variants.items():
        try:
            models[name] = variant.build(config.size, image_px).to(config.device).eval()
        except ImportError as error:
            sys.stderr.write(f"bench model: {name} is left out ({error})\n")
    return models


def _call(
    model: Callable[..., object], inputs: Sequence[torch.Tensor], device: str, precision: str, compiled: bool = False
) -> Callable[[], object]:
    inputs = [x.to(device) for x in inputs]
    without_gradients = torch.no_grad if compiled else torch.inference_mode  # the compiler freezes weights in no_grad
    # Every model is cut alike, but for our stems: on a CPU as FocusViT cuts itself, compiled and on a GPU not at all.
    most = CPU_IMAGES if device == "cpu" and not compiled else len(inputs[0])

    def call() -> object:
        with without_gradients(), _autocast(device, precision):
            return in_slices(lambda *given: logits_of(model(*given)), *inputs, most=most)

    return call


def _autocast(device: str, precision: str) -> AbstractContextManager[object]:
    return torch.autocast(device.split(":")[0], torch.bfloat16) if precision == "bf16" else nullcontext()


def _ratio(baseline: Sequence[float], seconds: Sequence[float], extra_s: float = 0.0) -> float:
    """Median over rounds of the baseline's time over this one's."""
    return statistics.median(a / (b + extra_s) for a, b in zip(baseline, seconds))


def _rows(
    variants: dict[str, Variant], seconds: dict[str, list[float]], batch: int, segment_s: float
) -> list[list[str]]:
    baseline = seconds[PEER] if PEER in seconds else next(iter(seconds.values()))
    rows = []
    for name, times in seconds.items():
        extra = segment_s * batch if variants[name].needs_superpixels else 0.0
        median = statistics.median(times)
        rows.append(
            [name, f"{batch / median:.1f}", f"{batch / (median + extra):.1f}", f"{_ratio(baseline, times):.2f}x",
             f"{_ratio(baseline, times, extra):.2f}x"]
        )  # fmt: skip
    return rows


def speed_columns(config: BenchConfig) -> tuple[str, ...]:
    rate = "images/s" if config.clock == "wall" else "images/CPU s"
    return ("model", rate, f"{rate} with superpixels", "against the first", "with superpixels")


def throughput_tables(config: BenchConfig, segment_s: float) -> Iterator[Table]:
    variants = config.wanted(main_variants(config.size))
    models = build(variants, config)
    variants = {name: variants[name] for name in models}
    for precision in config.precisions_here():
        for batch in config.batch_sizes:
            calls = {
                name: _call(models[name], variant.inputs(batch, 224), config.device, precision)
                for name, variant in variants.items()
            }
            rounds = config.rounds if batch > 4 else 5 * config.rounds
            seconds = time_calls(_bar(calls, f"{precision} batch {batch}"), rounds, config.device, config.timer)
            title = f"Inference, {precision}, batch {batch}, eager, 224 px"
            rows = _rows(variants, seconds, batch, segment_s)
            yield Table(title=title, columns=speed_columns(config), rows=rows)
    yield _pooling_table(config, models)
    yield _cost_table(variants, models)


def _pooling_table(config: BenchConfig, models: dict[str, nn.Module]) -> Table:
    """Overlap, regions, pooling and the positional encoding alone, beside the whole forward."""
    name, model = next(
        (name, model) for name, model in models.items() if isinstance(model, FocusViT) and model.config.needs_maps
    )
    batch = max(config.batch_sizes)
    assert isinstance(model, FocusViT)
    variant = main_variants(config.size)[name]
    assert variant.config is not None and variant.config.tokens is not None
    images, maps = (x.to(config.device) for x in variant.inputs(batch, 224))
    patches = torch.randn(batch, variant.config.num_patches, variant.config.width, device=config.device)
    grid, tokens, pool = variant.config.grid, variant.config.tokens, model.pool
    assert isinstance(pool, SuperpixelPooling)

    def pooling() -> None:
        with torch.inference_mode():
            regions = measure_regions(maps, tokens)
            membership = pool.membership(overlap_matrix(maps, grid, tokens), regions.centre)
            pool(patches, membership)
            model.position(model.region_features(regions))

    calls = {"pooling": pooling, "forward": _call(model, (images, maps), config.device, "fp32")}
    seconds = {
        key: statistics.median(values)
        for key, values in time_calls(calls, config.rounds, config.device, config.timer).items()
    }
    share = seconds["pooling"] / seconds["forward"]
    rows = [[f"{seconds['pooling'] / batch * 1e3:.3f}", f"{seconds['forward'] / batch * 1e3:.2f}", f"{share:.1%}"]]
    columns = ("overlap, regions, pooling and position, ms an image", "forward, ms an image", "share")
    return Table(title=f"Pooling inside the forward of {name}, fp32, batch {batch}", columns=columns, rows=rows)


def _cost_table(variants: dict[str, Variant], models: dict[str, nn.Module]) -> Table:
    rows = []
    for name, model in models.items():
        inputs = variants[name].inputs(1, 224)
        parameters = sum(p.numel() for p in model.parameters())
        count = count_multiply_adds(model.cpu(), *inputs)
        rows.append([name, f"{parameters / 1e6:.2f}", f"{count / 1e9:.3f}"])
    return Table(
        title="Parameters and multiply-adds, counted", columns=("model", "M parameters", "G multiply-adds"), rows=rows
    )


def _bar(calls: dict[str, Callable[[], object]], text: str) -> dict[str, Callable[[], object]]:
    """The calls with a progress bar that moves at each."""
    bar = tqdm(desc=text, unit="call", leave=False)

    def moved(call: Callable[[], object]) -> Callable[[], object]:
        def run() -> object:
            bar.update()
            return call()

        return run

    return {name: moved(call) for name, call in calls.items()}


def compiled_tables(config: BenchConfig, segment_s: float) -> Iterator[Table]:
    """Every precision and batch size, each compiled for itself: weights laid out for the CPU, CUDA graphs on a GPU."""
    variants = config.wanted(main_variants(config.size), 4)
    models = build(variants, config)
    variants = {name: variants[name] for name in models}
    lead_around_spaces()
    how: dict[str, Any] = {"options": {"freezing": True}} if config.device == "cpu" else {"mode": "reduce-overhead"}
    for precision in config.precisions_here():
        for batch in config.batch_sizes:
            calls = {}
            for name, model in models.items():
                torch.compiler.reset()
                compiled = torch.compile(model, fullgraph=name != PEER, dynamic=False, **how)
                inputs = variants[name].inputs(batch, 224)
                calls[name] = _call(compiled, inputs, config.device, precision, compiled=True)
                calls[name]()
            rounds = config.rounds if batch > 4 else 5 * config.rounds
            bar = _bar(calls, f"compiled {precision} batch {batch}")
            seconds = time_calls(bar, rounds, config.device, config.timer)
            title = f"Inference, {precision}, batch {batch}, torch.compile (FocusViT with fullgraph), 224 px"
            rows = _rows(variants, seconds, batch, segment_s)
            note = f"Same settings for all: {', '.join(f'{key} {value}' for key, value in how.items())}."
            yield Table(title=title, columns=speed_columns(config), rows=rows, note=note)


def _train_step(model: nn.Module, inputs: Sequence[torch.Tensor], optimizer: torch.optim.Optimizer) -> None:
    training_loss(model, *inputs).backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def training_table(config: BenchConfig) -> Table:
    wanted = config.wanted(main_variants(config.size), 7)
    models = build(wanted, config)
    batch = max(config.batch_sizes)
    calls: dict[str, Callable[[], object]] = {}
    for name, model in models.items():
        inputs = [x.to(config.device) for x in wanted[name].inputs(batch, 224)]
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

        calls[name] = partial(_train_step, model.train(), inputs, optimizer)
    seconds = time_calls(_bar(calls, "training"), max(2, config.rounds // 2), config.device, config.timer)
    baseline = next(iter(seconds.values()))
    rows = [[name, f"{batch / statistics.median(t):.1f}", f"{_ratio(baseline, t):.2f}x"] for name, t in seconds.items()]
    title = f"Training step (forward, backward, AdamW), fp32, batch {batch}, 224 px"
    return Table(
        title=title,
        columns=(*speed_columns(config)[:2], "against the first"),
        rows=rows,
        note="Maps come from the shards: no superpixels to compute.",
    )


def _peak(variant: Variant, size: str, batch: int, device: str, kind: str) -> int:
    """In a fresh process: nothing of another model is alive."""
    torch.manual_seed(0)
    model = variant.build(size, 224).to(device)
    inputs = [x.to(device) for x in variant.inputs(batch, 224)]
    if kind == "training":
        return training_peak(model, *inputs, device=device)
    return inference_peak(model, *inputs, device=device, images_at_once=CPU_IMAGES if kind == "sliced" else None)


def memory_table(config: BenchConfig) -> Table:
    variants = config.wanted(main_variants(config.size))
    batch = max(config.batch_sizes)
    columns: dict[str, dict[str, int]] = {kind: {} for kind in config.memory_of}
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for name, variant in tqdm(variants.items(), desc="memory", unit="model", leave=False):
            for kind, found in columns.items():
                try:
                    found[name] = pool.submit(_peak, variant, config.size, batch, config.device, kind).result()
                except ImportError as error:
                    sys.stderr.write(f"bench model: {name} is left out ({error})\n")
    measured = list(columns[config.memory_of[0]])
    first = measured[0]
    rows = [
        [
            name,
            *(
                f"{columns[kind][name] / 2**20:.0f} ({columns[kind][name] / columns[kind][first]:.0%})"
                for kind in columns
            ),
        ]
        for name in measured
    ]
    how = "the profiler's record of every tensor" if config.device == "cpu" else "the allocator's peak"
    note = (
        f"Weights, inputs, activations, in training gradients and AdamW too; all with the whole batch at a time, but "
        f"for 'sliced': inference {CPU_IMAGES} images at a time, every model alike. On a CPU our stems, that of "
        f"'ViT-S/16, ours' too, take {STEM_IMAGES} at a time at inference. Fresh process each, {how}."
    )
    title = f"Peak memory, MiB (share of the first), fp32, batch {batch}, 224 px"
    return Table(title=title, columns=("model", *columns), rows=rows, note=note)


def sweep_table(config: BenchConfig, segment_s: float) -> Table:
    first = dict(list(main_variants(config.size).items())[:2])
    variants = config.wanted({**first, **sweep_variants(config.size)})
    models = build(variants, config)
    variants = {name: variants[name] for name in models}
    batch = min(16, max(config.batch_sizes))
    calls = {n: _call(models[n], v.inputs(batch, 224), config.device, "fp32") for n, v in variants.items()}
    seconds = time_calls(_bar(calls, "sweep"), config.rounds, config.device, config.timer)
    rows = _rows(variants, seconds, batch, segment_s)
    for row, model in zip(rows, models.values()):
        row.append(f"{count_multiply_adds(model.cpu(), *variants[str(row[0])].inputs(1, 224)) / 1e9:.2f}")
    title = f"Sweep of tokens K, grid blocks d0 and trunk, fp32, batch {batch}, 224 px"
    return Table(title=title, columns=(*speed_columns(config), "G multiply-adds"), rows=rows)


def large_table(config: BenchConfig, batch: int = 2) -> Table:
    image_px = config.large_px
    variants = config.wanted(large_image_variants(config.size, image_px))
    models = build(variants, config, image_px)
    calls = {n: _call(models[n], v.inputs(batch, image_px), config.device, "fp32") for n, v in variants.items()}
    seconds = time_calls(_bar(calls, "large"), config.rounds, config.device, config.timer)
    baseline = next(iter(seconds.values()))
    rows = []
    for name, times in seconds.items():
        count = count_multiply_adds(models[name].cpu(), *variants[name].inputs(1, image_px))
        rows.append(
            [name, f"{batch / statistics.median(times):.2f}", f"{_ratio(baseline, times):.2f}x", f"{count / 1e9:.2f}"]
        )
    columns = (*speed_columns(config)[:2], "against full attention", "G multiply-adds")
    title = f"Attention forms at {image_px} px, fp32, batch {batch} (superpixels not included)"
    patches, width = (image_px // 16) ** 2, SIZES[config.size]["width"]
    note = (
        f"With n = {patches + 1} tokens of width D = {width} a block costs 12 n D^2 for its linear layers and 2 n^2 D "
        f"for attention: a form that keeps all n tokens in the linear layers gains at most "
        f"{1 + (patches + 1) / (6 * width):.2f}x, even if its attention were free."
    )
    return Table(title=title, columns=columns, rows=rows, note=note)
