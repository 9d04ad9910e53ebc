"""`bench drop-in`: Hugging Face's ViT, patched and not: speed, and training by its library's own Trainer."""

import itertools
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from focusvit.drop_in.patch import Segmenter, patch
from focusvit.model.cost import inference_peak, time_calls, training_loss
from pipeline.errors import UsageError
from tests.benchmarks.hosts.shapes import SHAPES, shape_table
from tests.benchmarks.model.drop_in_trainer import PX, labelled_images, normalised, train_with_trainer
from tests.benchmarks.model.throughput import photos_or_drawn, superpixels
from tests.benchmarks.model.variants import hugging_face_vit
from tests.benchmarks.record import TimedConfig, begin
from tests.benchmarks.report import Table

PLAIN = "as it is"


@dataclass(frozen=True, kw_only=True)
class BenchDropInConfig(TimedConfig):
    """A ViT of Hugging Face with random weights beside itself patched."""

    data: str
    """labelled images for the Trainer, in any layout that `focusvit preprocess` reads"""
    split: str = "train"
    size: Literal["tiny", "small", "base"] = "small"
    tokens: int = 64
    grid_depth: int = 2
    latents: int = 16
    batch_size: int = 32
    shapes: tuple[str, ...] = ("ViT-S/14", "ViT-B/16")
    """hosts of the speed tables; () = none"""
    image_px: tuple[int, ...] = (224, 518)
    batches: tuple[int, ...] = (1, 32)
    share: float = 0.25
    """of the patches that is left in these hosts"""
    depth: float = 0.5
    """of their blocks that run before"""
    most_patches: int = 20000
    """a speed table of a batch with more patches is left out, and the record says so"""
    device: str = "cpu"
    rounds: int = 5
    steps: int = 30
    """steps of each Trainer"""
    classes: int = 8
    """classes that the Trainer learns, `per_class` images each"""
    per_class: int = 32

    def __post_init__(self) -> None:
        numbers = (self.tokens, self.latents, self.batch_size, self.rounds, self.steps, self.classes, self.per_class)
        if min(numbers) < 1:
            raise ValueError("every number of python -m tests.benchmarks drop-in must be at least 1")
        if set(self.shapes) - set(SHAPES):
            raise ValueError(f"--shapes is {', '.join(self.shapes)}; known are {', '.join(SHAPES)}")
        self.check_clock(self.device)


def main(argv: list[str]) -> int:
    """Print the tables and save them under tests/benchmarks/results."""
    config, record = begin("drop-in", BenchDropInConfig, argv, ("torch", "transformers", "accelerate"))
    try:
        import accelerate  # noqa: F401 - the Trainer needs it
        import transformers

        transformers.logging.set_verbosity_error()
    except ImportError as error:
        raise UsageError(f"{error}. Install the peers: pip install -e '.[soak]'.") from None
    record.say(f"ViT {config.size} at {PX} px, {config.tokens} tokens, batch {config.batch_size}")
    record.facts |= {"threads": torch.get_num_threads(), "clock": config.clock}
    left_out = []
    for shape, px, batch in itertools.product(config.shapes, config.image_px, config.batches):
        if batch * (px // SHAPES[shape][1]) ** 2 > config.most_patches:
            left_out.append(f"{shape} at {px} px, batch {batch}")
            record.facts["left out, too slow here"] = "; ".join(left_out)
            continue
        photos = [photo for _, photo in zip(range(batch), itertools.cycle(photos_or_drawn("", batch)[0]))]
        record.add(
            shape_table(
                shape,
                px,
                photos,
                share=config.share,
                depth=config.depth,
                rounds=config.rounds,
                device=config.device,
                clock=config.timer,
            )
        )
    for make in (speed_table, trainer_table):
        record.add(make(config))
    return record.end()


def variants(config: BenchDropInConfig, labels: int) -> dict[str, tuple[nn.Module, bool]]:
    """Models of the same weights by name, and whether a call gets maps."""

    def make(latents: int | None = None, segmenter: Segmenter | None = None) -> nn.Module:
        half = (0.5, 0.5, 0.5)
        return patch(
            _vit(config, labels),
            config.tokens,
            config.grid_depth,
            merge="colour",
            latents=latents,
            segmenter=segmenter,
            mean=half,
            std=half,
        )

    return {
        PLAIN: (_vit(config, labels), False),
        "patched, maps given": (make(), True),
        "patched, superpixels by torch SLIC": (make(), False),
        "patched, superpixels by fast-slic": (make(segmenter=_fast_slic), False),
        f"patched, {config.latents} latents, maps given": (make(config.latents), True),
    }


def _fast_slic(pixels: Tensor, budgets: tuple[int, ...]) -> list[Tensor]:
    """The segmenter of the shards, an image at a time on the host."""
    images = ((pixels + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return [torch.from_numpy(np.stack([superpixels(image, tokens) for image in images])) for tokens in budgets]


def _vit(config: BenchDropInConfig, labels: int) -> nn.Module:
    torch.manual_seed(0)
    model: Any = hugging_face_vit(config.size, PX)
    model.config.num_labels, model.num_labels = labels, labels
    model.classifier = nn.Linear(model.config.hidden_size, labels)
    return model


def speed_table(config: BenchDropInConfig) -> Table:
    """Inference, a training step (forward, backward, AdamW) and memory on photos, variants taking turns."""
    photos, what = photos_or_drawn("", config.batch_size)
    photos = [photos[i % len(photos)] for i in range(config.batch_size)]
    pixels, maps = normalised(photos), torch.from_numpy(np.stack([superpixels(x, config.tokens) for x in photos]))
    found = variants(config, 1000)
    inference = {name: _forward(model, pixels, maps if given else None) for name, (model, given) in found.items()}
    training = {name: _step(model, pixels, maps if given else None) for name, (model, given) in found.items()}
    seconds = [time_calls(calls, config.rounds, clock=config.timer) for calls in (inference, training)]
    rows = []
    for name, (model, given) in found.items():
        times = []
        for by_name in seconds:
            ratio = statistics.median(a / b for a, b in zip(by_name[PLAIN], by_name[name]))
            times += [f"{statistics.median(by_name[name]) / config.batch_size * 1e3:.1f}", f"{ratio:.2f}x"]
        peak = inference_peak(_WithMaps(model, maps if given else None), pixels)
        rows.append([name, *times, f"{peak / 2**20:.0f}"])
    return Table(
        title=f"Hugging Face ViT-{config.size}, {PX} px, batch {config.batch_size}, fp32, {what}",
        columns=["model", "ms an image", "speed", "training, ms an image", "training speed", "inference peak, MiB"],
        rows=rows,
        note=f"{config.tokens} tokens before block {config.grid_depth}; random weights; times by the {config.clock} "
        "clock, medians of rounds. With maps given, their making is not counted (`bench model` has its time).",
    )


class _WithMaps(nn.Module):
    def __init__(self, model: nn.Module, maps: Tensor | None) -> None:
        super().__init__()
        self.model, self.maps = model, {} if maps is None else {"maps": maps}

    def forward(self, pixels: Tensor) -> Any:
        return self.model(pixels, **self.maps)


def _forward(model: nn.Module, pixels: Tensor, maps: Tensor | None) -> Callable[[], object]:
    def call() -> object:
        with torch.inference_mode():
            return _WithMaps(model.eval(), maps)(pixels)

    return call


def _step(model: nn.Module, pixels: Tensor, maps: Tensor | None) -> Callable[[], object]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def call() -> None:
        training_loss(_WithMaps(model.train(), maps), pixels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return call


def trainer_table(config: BenchDropInConfig) -> Table:
    """Each variant trained by transformers.Trainer on the same images in the same order."""
    samples, classes = labelled_images(
        config.data, config.split, classes=config.classes, per_class=config.per_class, tokens=config.tokens
    )
    rows, plain_s = [], 0.0
    for name, (model, given) in variants(config, len(classes)).items():
        losses, step_s = train_with_trainer(
            model, samples, with_maps=given, batch_size=config.batch_size, steps=config.steps, clock=config.timer
        )
        middle = statistics.median(step_s)
        plain_s = plain_s or middle
        fifth = max(1, len(losses) // 5)
        ends = [statistics.mean(part) for part in (losses[:fifth], losses[-fifth:])]
        rows.append([name, f"{ends[0]:.3f}", f"{ends[1]:.3f}", f"{middle:.2f}", f"{plain_s / middle:.2f}x"])
    return Table(
        title=f"transformers.Trainer, {config.steps} steps, {len(samples)} images of {len(classes)} classes at {PX} px",
        columns=["model", "loss, first fifth", "loss, last fifth", "s a step", "speed"],
        rows=rows,
        note=f"From random weights, batch {config.batch_size}, AdamW, lr 3e-4. Steps by the {config.clock} clock, "
        "median, from the end of one to the end of the next; decoded images and maps lie in memory.",
    )
