"""`bench edge`: FocusViT and a plain ViT, exported the same way, in onnxruntime: latency, size, memory."""

import functools
import itertools
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from focusvit.model.cost import example_inputs, time_calls
from focusvit.model.model import FocusViT, FocusViTConfig
from focusvit.model.presets import focusvit, vit
from focusvit.predict.export import onnx_bytes
from focusvit.predict.graph import FixedBudget, export_program
from focusvit.predict.onnx_predictor import ExportRecord, inference_session
from focusvit.predict.view import ViewConfig
from pipeline.image.image import ImageConfig
from pipeline.superpixels.segment import SuperpixelConfig
from tests.benchmarks.model.throughput import SEGMENTER, photos_or_drawn, superpixels
from tests.benchmarks.record import TimedConfig, begin
from tests.benchmarks.report import Table

IMAGE_PX, MAP_PX, TOKENS = 224, 112, 64
NUM_PHOTOS = 32


@dataclass(frozen=True, kw_only=True)
class EdgeConfig(TimedConfig):
    """Exported models with random weights at 224 px."""

    size: Literal["tiny", "small", "base"] = "small"
    batch_sizes: tuple[int, ...] = (1, 8)
    threads: tuple[int, ...] = (1, 2)
    """threads of onnxruntime; superpixels of a batch are made by as many"""
    rounds: int = 15
    """how often the models take turns; medians are reported"""
    photos: str = ""
    """folder of photos to segment; by default $FOCUSVIT_DATA/imagenet-sample, else drawn scenes"""

    def __post_init__(self) -> None:
        numbers = (*self.batch_sizes, *self.threads, self.rounds)
        if min(numbers) < 1 or not self.batch_sizes or not self.threads:
            raise ValueError(
                f"--batch-sizes is {self.batch_sizes}, --threads {self.threads}, --rounds {self.rounds}: all must be 1 "
                "or more."
            )
        if self.clock == "cpu" and self.threads != (1,):
            raise ValueError(f"--clock cpu with --threads {self.threads}: waiting threads count too; use --threads 1.")


@dataclass(frozen=True, kw_only=True)
class Exported:
    """One file: which model, its precision, its batch size."""

    model: str
    precision: str
    batch: int
    file: Path
    needs_maps: bool

    @property
    def name(self) -> str:
        return f"{self.model} {self.precision}"


def main(argv: list[str]) -> int:
    packages = ("onnxruntime", "onnx", "torch", "numpy", "fast-slic", "numba")
    config, record = begin("edge", EdgeConfig, argv, packages)
    record.say(
        f"size {config.size}, batches {config.batch_sizes}, threads {config.threads}, {config.rounds} rounds, "
        f"{config.clock} clock"
    )
    found, what = photos_or_drawn(config.photos, NUM_PHOTOS)
    record.facts |= {"clock": config.clock, "segmenter": f"{SEGMENTER}, on {what}"}
    images = list(itertools.islice(itertools.cycle(found), max(len(found), *config.batch_sizes)))
    with tempfile.TemporaryDirectory() as folder:
        files = export_all(config, Path(folder))
        record.add(cost_table(files))
        for batch in config.batch_sizes:
            for threads in config.threads:
                chosen = [one for one in files if one.batch == batch]
                record.add(latency_table(config, chosen, threads, images))
    return record.end()


def export_all(config: EdgeConfig, folder: Path) -> list[Exported]:
    """A plain ViT/16 and FocusViT of the size, fp32 and int8, one file for each batch size."""
    letter = config.size[0].upper()
    models = {f"ViT-{letter}/16": vit(config.size), f"FocusViT-{letter}": focusvit(config.size, tokens=TOKENS)}
    made: list[Exported] = []
    for name, model_config in models.items():
        torch.manual_seed(0)
        model = FixedBudget(FocusViT(model_config).eval(), model_config.tokens)
        for batch in config.batch_sizes:
            images, maps = example_inputs(model_config, batch)
            if maps is not None:  # at the size at which recipes give them to the model
                scale = MAP_PX // maps.shape[-1]
                maps = maps.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
            program = export_program(model, *(x for x in (images, maps) if x is not None))
            for precision in ("fp32", "int8"):
                sys.stderr.write(f"bench edge: {name} {precision}, batch {batch}\n")
                file = folder / f"{len(made)}.onnx"
                file.write_bytes(onnx_bytes(program, _record(model_config, batch, precision)))
                made.append(
                    Exported(model=name, precision=precision, batch=batch, file=file, needs_maps=maps is not None)
                )
    return made


def _record(config: FocusViTConfig, batch: int, precision: str) -> ExportRecord:
    view = ViewConfig(
        image_px=IMAGE_PX, map_px=MAP_PX, crop_fraction=0.875, tokens=config.tokens if config.needs_maps else None,
        image=ImageConfig(), superpixels=SuperpixelConfig(),
    )  # fmt: skip
    classes = tuple(map(str, range(config.num_classes)))
    return ExportRecord(
        classes=classes, batch_size=batch, precision=precision, view=view, mean=config.mean, std=config.std
    )


def cost_table(files: list[Exported]) -> Table:
    rows = []
    for one in files:
        model, process = (_memory(one.file, what) / 2**20 for what in ("model", "predict"))
        size = one.file.stat().st_size / 2**20
        rows.append([one.model, one.precision, one.batch, f"{size:.1f}", f"{model:.0f}", f"{process:.0f}"])
    columns = ("model", "precision", "batch", "file, MiB", "model's memory, MiB", "whole process, MiB")
    note = (
        "Memory is physical and the peak, each row in a process of its own: what loading and running the file adds to "
        "onnxruntime, and the whole process of `focusvit predict --onnx`, with decoding and superpixels."
    )
    return Table(title="Size and memory", columns=columns, rows=rows, note=note)


def _memory(file: Path, what: str) -> int:
    argv = [sys.executable, "-m", "tests.benchmarks.model.edge_memory", str(file), what]
    return int(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


def latency_table(config: EdgeConfig, files: list[Exported], threads: int, images: list[np.ndarray]) -> Table:
    """One batch size and number of threads. Models and superpixels take turns; each turn segments the next photos."""
    calls: dict[str, Callable[[], object]] = {}
    batch, waiting = files[0].batch, itertools.cycle(images)
    segment_one = functools.partial(superpixels, tokens=TOKENS)
    with ThreadPoolExecutor(threads) as pool:
        maps = list(pool.map(segment_one, images[:batch]))
        for one in files:
            calls[one.name] = _call(one, threads, images[:batch], maps)
        calls["superpixels"] = lambda: list(pool.map(segment_one, itertools.islice(waiting, batch)))
        seconds = time_calls(calls, config.rounds, clock=config.timer)
    segment, first = seconds["superpixels"], seconds[files[0].name]
    rows = []
    for one in files:
        own = seconds[one.name]
        whole = [a + b for a, b in zip(own, segment)] if one.needs_maps else own
        rows.append(
            [one.model, one.precision, _ms(own), _ms(segment) if one.needs_maps else "0", _ms(whole),
             f"{statistics.median(a / b for a, b in zip(first, whole)):.2f}x"]
        )  # fmt: skip
    columns = ("model", "precision", "model, ms", "superpixels, ms", "together, ms", "faster than the first")
    title = f"Latency of a batch of {batch}, {threads} thread{'s' * (threads > 1)}, {config.clock} clock"
    return Table(title=title, columns=columns, rows=rows, note="Decoding and cropping, the same for all, are left out.")


def _call(one: Exported, threads: int, images: list[np.ndarray], maps: list[np.ndarray]) -> Callable[[], object]:
    session = inference_session(one.file.read_bytes(), str(one.file), threads)
    given: dict[str, Any] = {"images": np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))}
    if one.needs_maps:
        given["maps"] = np.stack(maps)
    return lambda: session.run(None, given)


def _ms(seconds: list[float]) -> str:
    return f"{1e3 * statistics.median(seconds):.1f}"
