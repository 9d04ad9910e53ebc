"""`focusvit cost`: what a recipe or a checkpoint costs on this machine, relative to the plain ViT of its size."""

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from focusvit.choices import pick_device
from focusvit.data.config import DataConfig
from focusvit.model.config import FocusViTConfig
from focusvit.model.cost import ModelProfile, profile_models, time_calls
from focusvit.model.presets import plain_vit_of
from focusvit.model.slices import CPU_IMAGES
from focusvit.runs.checkpoint import load_checkpoint
from focusvit.runs.config_json import from_json
from focusvit.runs.model_record import model_config
from pipeline.commandline import aligned
from pipeline.errors import UsageError
from pipeline.io.json_text import json_text
from pipeline.sources.embedded import draw_shape
from pipeline.superpixels.hierarchy import fit
from pipeline.superpixels.segment import SuperpixelConfig, segment_image

from .small import RECIPES, cost_options, recipe

PLAIN = "plain ViT"
_NUM_DRAWN = 8  # images that are segmented: times hardly depend on what they show


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A model with all that decides what it costs."""

    name: str
    model: FocusViTConfig
    data: DataConfig
    superpixels: SuperpixelConfig


def find_model(name: str) -> Measured:
    """The model that a recipe or a checkpoint names. Raises `UsageError` when `name` is neither."""
    if name in RECIPES:
        config = recipe(name)
        assert isinstance(config.model, FocusViTConfig)  # no recipe makes a host of another library
        return Measured(name=name, model=config.model, data=config.data, superpixels=SuperpixelConfig())
    record = load_checkpoint(name)
    model = model_config(record)
    if not isinstance(model, FocusViTConfig):
        raise UsageError(f"{record.uri} is a {model.architecture} of {model.library}; `focusvit cost` knows FocusViT.")
    return Measured(
        name=record.uri,
        model=model,
        data=from_json(DataConfig, record.config.get("data", {}), f"{record.uri}: data"),
        superpixels=from_json(SuperpixelConfig, record.superpixels, f"{record.uri}: superpixels"),
    )


def superpixel_seconds(
    images: Sequence[np.ndarray], map_size: tuple[int, int], tokens: int,
    settings: SuperpixelConfig | None = None, clock: Callable[[], float] = time.perf_counter,
) -> float:  # fmt: skip
    """Seconds an image by the segmenter that makes the shards, with as many threads as torch has, median of 3 rounds.

    `images`: uint8 (H, W, 3) each; maps have `map_size` pixels and exactly `tokens` regions.
    """
    settings = settings or SuperpixelConfig()

    def one(image: np.ndarray) -> np.ndarray:
        return fit(*segment_image(image, settings), (0.0, 0.0, 1.0, 1.0), False, map_size, tokens)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        seconds = time_calls({"all": lambda: list(pool.map(one, images))}, 3, clock=clock)
    return statistics.median(seconds["all"]) / len(images)


def cost(of: Measured, *, batch: int, rounds: int, device: str) -> dict[str, Any]:
    """`model` and `plain_vit` (None where the model is one): their profile, and `images_per_s_with_superpixels`.

    `superpixels_s`: of one image, 0 for a model that takes none. `relative`: model over plain ViT, value by value.
    """
    configs, plain_vit = {of.name: of.model}, plain_vit_of(of.model)
    if any(getattr(of.model, name) != getattr(plain_vit, name) for name in ("tokens", "stem", "grid_depth", "trunk")):
        configs[PLAIN] = plain_vit
    superpixels_s = 0.0
    if of.model.needs_maps and of.model.tokens is not None:
        side = round(of.data.image_px / of.data.eval_crop_fraction)  # of the image that is segmented, then cropped
        drawn = [draw_shape(np.random.default_rng(i), i % 8, side)[0] for i in range(_NUM_DRAWN)]
        map_size = (of.data.map_side, of.data.map_side)
        superpixels_s = superpixel_seconds(drawn, map_size, of.model.tokens, of.superpixels)
    profiles = profile_models(configs, batch=batch, rounds=rounds, device=device)
    ours = _with_superpixels(profiles[of.name], superpixels_s)
    plain = _with_superpixels(profiles[PLAIN], 0.0) if PLAIN in profiles else None
    return {
        "model": ours,
        "plain_vit": plain,
        "relative": None if plain is None else {name: ours[name] / plain[name] for name in ours},
        "superpixels_s": superpixels_s,
    }


def _with_superpixels(profile: ModelProfile, superpixels_s: float) -> dict[str, float]:
    """The profile's values, and the rate when each image's superpixels are made before its forward."""
    rate = 1 / (1 / profile.images_per_s + superpixels_s)
    return {**dataclasses.asdict(profile), "images_per_s_with_superpixels": rate}


_LINES: tuple[tuple[str, str, float], ...] = (
    ("parameters, M", "parameters", 1e6),
    ("multiply-adds an image, G", "multiply_adds", 1e9),
    ("images/s", "images_per_s", 1),
    ("images/s, superpixels included", "images_per_s_with_superpixels", 1),
    ("peak memory, inference, MiB", "inference_peak_bytes", 2**20),
    (f"the same, {CPU_IMAGES} images at a time, MiB", "sliced_peak_bytes", 2**20),
    ("peak memory, training, MiB", "training_peak_bytes", 2**20),
)


def table(found: dict[str, Any]) -> list[str]:
    """The lines that are printed: values, those of the plain ViT, and the ratio."""
    ours, plain, relative = found["model"], found["plain_vit"], found["relative"]
    rows = [("", "this model", *((PLAIN, "relative") if plain else ()))]
    for title, key, unit in _LINES:
        if key == "sliced_peak_bytes" and ours[key] == ours["inference_peak_bytes"]:
            continue  # a batch of one slice
        others = (f"{plain[key] / unit:.4g}", f"{relative[key]:.2f}x") if plain else ()
        rows.append((title, f"{ours[key] / unit:.4g}", *others))
    return aligned(rows, right=True)


def main(argv: list[str]) -> int:
    config = cost_options(argv)
    device, of = pick_device(config.device), find_model(config.model)
    height, width = of.model.image_size
    threads = torch.get_num_threads()
    where = (
        f"{device}, {threads} thread{'s' * (threads > 1)}" if device == "cpu" else torch.cuda.get_device_name(device)
    )
    say = sys.stderr.write if config.json else sys.stdout.write
    say(f"cost of {of.name}: {width} x {height} px, fp32, batch {config.batch}, on {where}\n")
    found = cost(of, batch=config.batch, rounds=config.rounds, device=device)
    if config.json:
        facts = {"of": of.name, "device": device, "threads": threads, "batch": config.batch}
        sys.stdout.write(json_text(facts | found) + "\n")
        return 0
    say("\n".join(table(found)) + "\n")
    if found["superpixels_s"]:
        say(
            f"superpixels: {1e3 * found['superpixels_s']:.1f} ms an image by fast-slic on the CPU, when made as images "
            "come; training reads them from the shards\n"
        )
    return 0
