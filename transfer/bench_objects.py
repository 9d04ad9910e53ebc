"""`focusvit bench objects`: do the tokens that a model attends to lie on the object? Exact masks tell.

FocusViT, its LLA form, the plain ViT and two controls are trained from scratch with one recipe: on generated shapes
(exact masks, the object decides the class), and, given shards, on Tiny ImageNet-40 to look at CamVid's street scenes.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from focusvit.array_loader import ArrayData, ArrayEvalLoader
from focusvit.attended import (
    Reader,
    best_regions,
    density,
    mass_inside,
    overlap_at_area,
    patch_map,
    pointing,
    token_attention,
)
from focusvit.evaluate import tally
from focusvit.intervals import over_draws
from focusvit.model import FocusViT, FocusViTConfig
from focusvit.partitions import grid_cells
from focusvit.presets import control
from focusvit.study import arrays, train_config, trained
from focusvit.study_matrix import SETS, default_model
from pipeline.bench_report import Table, evidence, save
from pipeline.commandline import parse
from pipeline.dataset import open_dataset
from pipeline.embedded import SHAPE_CLASSES

from .object_scenes import SIDE, Scenes, camvid_scenes, drawn_scenes

_GEOMETRY = replace(SETS["tiny-imagenet-40"], map_px=SIDE)


@dataclass(frozen=True, kw_only=True)
class BenchObjectsConfig:
    """Attention of trained models beside exact masks."""

    data: str = ""
    """folder with shards of tiny-imagenet-40 and camvid; "" leaves CamVid out"""
    seeds: int = 3
    shapes_per_class: int = 200
    """generated training images of each of the 8 classes; a quarter as many are looked at"""
    shapes_samples: int = 12_800
    """training samples of each run on the shapes"""
    natural_samples: int = 32_000
    """training samples of each run on Tiny ImageNet-40"""
    device: str = "cpu"
    name: str = "objects"
    """the tables go to tests/benchmarks/results/NAME.md and NAME.json"""

    def __post_init__(self) -> None:
        if min(self.seeds, self.shapes_samples, self.natural_samples) < 1 or self.shapes_per_class < 4:
            raise ValueError("seeds and samples must be at least 1, --shapes-per-class at least 4")


def models() -> dict[str, FocusViTConfig]:
    """One geometry, one stem, a class token in each: only the tokens differ."""
    model = default_model(_GEOMETRY, readout="cls")
    return {
        "plain ViT, conv stem, 64 patches": control("full_grid", model),
        "FocusViT, 16 superpixels": model,
        "FocusViT, LLA (24 superpixels, 8 latents)": replace(model, tokens=24, trunk="hybrid", num_latents=8),
        "control: uniform grid, 16 cells": control("uniform_grid", model),
        "control: plain ViT, patches of 16 px": replace(control("large_patch", model), stem=model.stem),
    }


def region_maps(config: FocusViTConfig, data: ArrayData) -> np.ndarray:
    """Integer (N, 64, 64): the region behind each token, whichever way the model gets its tokens."""
    if data.maps is not None:
        return data.maps.cpu().numpy().astype(np.int64)
    cells = patch_map(config.grid, (SIDE, SIDE)) if config.tokens is None else grid_cells(config.tokens, SIDE, SIDE)
    return np.broadcast_to(cells.astype(np.int64), (len(data), SIDE, SIDE))


def agreement(weights: np.ndarray, regions: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    """Mean figures of token weights (N, T) on region maps and masks (N, 64, 64)."""
    found: dict[str, list[float]] = {"pointing": [], "mass": [], "overlap": [], "best": []}
    for spread, region_map, mask in zip(density(weights, regions), regions, masks):
        found["pointing"].append(pointing(spread, mask))
        found["mass"].append(mass_inside(spread, mask))
        found["overlap"].append(overlap_at_area(spread, mask))
        found["best"].append(overlap_at_area(best_regions(region_map, mask), mask))
    return {name: float(np.mean(values)) for name, values in found.items()}


@torch.inference_mode()
def look(model: FocusViT, data: ArrayData, reader: Reader) -> np.ndarray:
    """(N, T): the attention that each token of each image gets."""
    model.eval()
    found = []
    for start in range(0, len(data), 100):
        rows = slice(start, start + 100)
        seen = model.forward_intermediates(data.images[rows], None if data.maps is None else data.maps[rows])
        found.append(token_attention(model, seen, reader).cpu().numpy())
    return np.concatenate(found)


def measure(
    config: BenchObjectsConfig, train_of: Callable[[FocusViTConfig], ArrayData], num_classes: int, samples: int,
    scenes: Scenes, labelled: bool,
) -> dict[str, list[dict[str, float]]]:  # fmt: skip
    """Every model trained with every seed, then looked at: by row, one set of figures a seed."""
    found: dict[str, list[dict[str, float]]] = {}
    for title, values in models().items():
        model_config = replace(values, num_classes=num_classes)
        tokens = model_config.tokens if model_config.needs_maps else None
        train, shown = train_of(model_config).to(config.device), scenes.data(tokens, "looked at").to(config.device)
        regions = region_maps(model_config, shown)
        equal = np.ones((len(shown), int(regions.max()) + 1))
        found[f"{title}: no model, tokens alike"] = [agreement(equal, regions, scenes.masks)]
        for seed in range(config.seeds):
            model = trained(train_config(model_config, _GEOMETRY, seed), train, samples, config.device, title).model
            scores = {}
            if labelled:
                batches = ArrayEvalLoader(shown, batch_size=100)
                counted = tally(model, batches, num_samples=len(shown), num_classes=num_classes, device=config.device)
                scores["top1"] = counted.metrics()["top1"]
            readers: dict[Reader, str] = {"class": title}
            if model_config.has_latents:
                readers["latents"] = f"{title}: its latents"
            for reader, row in readers.items():
                figures = agreement(look(model, shown, reader), regions, scenes.masks)
                found.setdefault(row, []).append({**scores, **figures})
            sys.stdout.write(f"{title}, seed {seed}: pointing {found[title][-1]['pointing']:.1%}\n")
            sys.stdout.flush()
    return found


def table(title: str, found: dict[str, list[dict[str, float]]], masks: np.ndarray, note: str) -> Table:
    columns = ("model", "top-1", "pointing game", "attention on the object", "overlap (IoU)", "best overlap")
    chance = masks.mean((1, 2))
    level, overlap = f"{chance.mean():.1%}", f"{(chance / (2 - chance)).mean():.1%}"
    rows: list[list[str]] = [["uniform attention (chance)", "-", level, level, overlap, "-"]]
    for row, seeds in found.items():
        cells = [_spread([seed[name] for seed in seeds]) for name in ("pointing", "mass", "overlap")]
        top1 = _spread([seed["top1"] for seed in seeds]) if "top1" in seeds[0] else "-"
        rows.append([row, top1, *cells, f"{np.mean([seed['best'] for seed in seeds]):.1%}"])
    return Table(title=title, columns=columns, rows=rows, note=note)


def _spread(values: list[float]) -> str:
    low, high = over_draws(values)
    mean = f"{np.mean(values):.1%}"
    return mean if len(values) < 2 else f"{mean} ({100 * low:.1f} .. {100 * high:.1f})"


def tables(config: BenchObjectsConfig) -> Iterator[Table]:
    train, shown = drawn_scenes(config.shapes_per_class, 0), drawn_scenes(config.shapes_per_class // 4, 1)
    found = measure(
        config, lambda model: train.data(model.tokens if model.needs_maps else None, "shapes"),
        len(SHAPE_CLASSES), config.shapes_samples, shown, True,
    )  # fmt: skip
    note = (
        f"{config.shapes_samples} training samples of {len(train.masks)} images, {config.seeds} seeds; "
        f"{len(shown.masks)} other images looked at. Attention of the class token to tokens, last layer (LLA: last "
        "read), mean of heads, spread over each region's pixels. Pointing: the most attended pixel lies on the object. "
        "Overlap: of the object with as many most attended pixels. Best: with each region's true share instead. "
        "Tokens alike: what the shape of the regions gives by itself. 95 % intervals over seeds."
    )
    yield table("Generated shapes, exact masks", found, shown.masks, note)
    if config.data:
        scenes = camvid_scenes(f"{config.data}/camvid")
        uri = f"{config.data}/tiny-imagenet-40"
        found = measure(
            config, lambda model: arrays(uri, "train", SIDE, SIDE, model.tokens if model.needs_maps else None),
            len(open_dataset(uri).classes), config.natural_samples, scenes, False,
        )  # fmt: skip
        note = (
            f"Trained on Tiny ImageNet-40 ({config.natural_samples} samples), never on street scenes; "
            f"{len(scenes.masks)} of CamVid's images hold 1 % or more of signs, cars, pedestrians and bicyclists."
        )
        yield table("CamVid street scenes", found, scenes.masks, note)


def main(argv: list[str]) -> int:
    """Print the tables and save them under tests/benchmarks/results."""
    config = parse(BenchObjectsConfig, argv, prog="focusvit bench objects")
    sys.stdout.write(f"bench objects: {len(models())} models, {config.seeds} seeds each\n")
    facts = evidence("focusvit bench objects " + " ".join(argv), ("torch", "numpy", "fast-slic"))
    made: list[Table] = []
    for each in tables(config):
        made.append(each)
        sys.stdout.write(each.markdown() + "\n")
        sys.stdout.flush()
        paths = save(config.name, made, facts)
    for path in paths:
        sys.stdout.write(f"bench objects: wrote {path}\n")
    return 0
