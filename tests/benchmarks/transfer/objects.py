"""`python -m tests.benchmarks objects`: do the tokens that a model attends to lie on the object? Exact masks tell.

FocusViT, its LLA form, the plain ViT and two controls are trained from scratch with one recipe, on generated objects
before clutter or, given shards, on windows of CamVid. Other images are then looked at: how often each model is right
and where its attention lies, beside the same models untrained, regions without a model, and chance.
"""

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from focusvit.model.model import FocusViT, FocusViTConfig
from focusvit.model.partitions import RANDOM_PARTITIONS, drawn_by_pixels, grid_cells, random_cells
from focusvit.predict.attention import last_read
from focusvit.runs.checkpoint import load_model
from focusvit.train.config import TrainConfig
from focusvit.train.learner import Learner
from focusvit.train.optim import OptimConfig
from tests.benchmarks.model.attended import object_share, patch_map, token_attention
from tests.benchmarks.model.controls import control
from tests.benchmarks.record import RecordConfig, begin
from tests.benchmarks.study.arrays import ArrayData
from tests.benchmarks.study.matrix import SETS, default_model
from tests.benchmarks.study.recipe import train_config
from tests.benchmarks.study.training import in_memory, train_on_arrays
from tests.benchmarks.transfer.object_scenes import SIDE, Scenes, camvid_scenes, drawn_scenes
from tests.benchmarks.transfer.object_tables import ReaderFigures, agreement, differences, figures, picture
from transfer.dense.data import nearest

_GEOMETRY = replace(SETS["tiny-imagenet-40"], width=96, heads=3, map_px=SIDE)
_BATCH, _LR = 16, 8e-4  # the study's 64 and 1.5e-3 leave the models near chance after so few samples


@dataclass(frozen=True, kw_only=True)
class BenchObjectsConfig(RecordConfig):
    """Attention of trained models beside exact masks; a picture of it lies next to the tables."""

    data: str = ""
    """folder that holds the shards of CamVid, as DATA/camvid; "" looks at generated objects"""
    seeds: int = 3
    images_per_class: int = 800
    """training images of each class; an eighth as many others are looked at"""
    samples: int = 8_000
    """training samples of each run; look at top-1 first: attention of a model that has not learned says nothing"""
    device: str = "cpu"

    def __post_init__(self) -> None:
        if min(self.seeds, self.samples) < 1 or self.images_per_class < 8:
            raise ValueError("seeds and samples must be at least 1, --images-per-class at least 8")


def models() -> dict[str, FocusViTConfig]:
    """One geometry, one stem, a class token in each: only the tokens differ."""
    model = default_model(_GEOMETRY, readout="cls")
    return {
        "plain ViT, 64 patches": control("full_grid", model),
        "FocusViT, 16 superpixels": model,
        "LLA, 24 superpixels, 8 latents": replace(model, tokens=24, trunk="hybrid", num_latents=8),
        "control: uniform grid, 16 cells": control("uniform_grid", model),
        "control: 16 random regions": control("random_regions", model),
    }


def recipe(model: FocusViTConfig, seed: int) -> TrainConfig:
    """The study's, in smaller steps."""
    optim = OptimConfig(lr=_LR, warmup_epochs=0.0, weight_decay=0.05)
    return replace(train_config(model, _GEOMETRY, seed), global_batch=_BATCH, optim=optim)


def region_maps(config: FocusViTConfig, data: ArrayData) -> np.ndarray:
    """Integer (N, 64, 64): the region behind each token, whichever way the model gets its tokens."""
    if data.maps is not None:
        return data.maps.cpu().numpy().astype(np.int64)
    if config.tokens is not None and config.partition == "random":
        side = 4 * config.grid[0]
        drawn = np.stack([random_cells(config.tokens, side, side, seed) for seed in range(RANDOM_PARTITIONS)])
        large = np.stack([nearest(cells, (SIDE, SIDE)) for cells in drawn]).astype(np.int64)
        return large[drawn_by_pixels(data.images).cpu().numpy()]
    cells = patch_map(config.grid, (SIDE, SIDE)) if config.tokens is None else grid_cells(config.tokens, SIDE, SIDE)
    return np.broadcast_to(cells.astype(np.int64), (len(data), SIDE, SIDE))


@torch.inference_mode()
def look(model: FocusViT, data: ArrayData) -> tuple[np.ndarray, np.ndarray | None]:
    """What the class token attends to, (N, T), and what each latent attends to, (N, M, T), if there are latents."""
    model.eval()
    by_class, by_latent = [], []
    for start in range(0, len(data), 100):
        rows = slice(start, start + 100)
        seen = model.forward_intermediates(data.images[rows], None if data.maps is None else data.maps[rows])
        by_class.append(token_attention(model, seen))
        read = last_read(seen)
        if read is not None:
            by_latent.append(read[:, model.num_class_tokens :])
    return np.concatenate(by_class), np.concatenate(by_latent) if by_latent else None


def chosen_by_mask(latents: np.ndarray, regions: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """(N, T): of the latents (N, M, T) of each image the one with the largest share of its attention on the object."""
    share = np.stack([object_share(*each) for each in zip(regions, masks)])
    best = (latents * share[:, None]).sum(-1).argmax(1)
    return latents[np.arange(len(latents)), best]


def readers(
    model: FocusViT, title: str, data: ArrayData, regions: np.ndarray, masks: np.ndarray
) -> dict[str, np.ndarray]:
    """By row of the table, what is attended to, (N, T)."""
    by_class, by_latent = look(model, data)
    found = {title: by_class}
    if by_latent is not None:
        found[f"{title}: mean of its latents"] = by_latent.mean(1)
        found[f"{title}: the latent that the mask chooses"] = chosen_by_mask(by_latent, regions, masks)
    return found


def measure(config: BenchObjectsConfig, train: Scenes, shown: Scenes) -> Iterator[list[ReaderFigures]]:
    """Every model before and after training, looked at: all models of a seed, then the rows so far, then the next."""
    rows: dict[str, ReaderFigures] = {}
    for seed in range(config.seeds):
        for title, values in models().items():
            settings = recipe(replace(values, num_classes=len(train.classes)), seed)
            tokens = settings.model.tokens if settings.model.needs_maps else None
            learned, looked = train.data(tokens, "learned"), shown.data(tokens, "looked at")
            _measure_one(config, title, settings, learned.to(config.device), looked.to(config.device), shown, rows)
            last = rows[title].trained[-1]
            sys.stdout.write(f"{title}, seed {seed}: top-1 {last['top1']:.1%}, on the object {last['mass']:.1%}\n")
            sys.stdout.flush()
        yield list(rows.values())


def _measure_one(
    config: BenchObjectsConfig, title: str, settings: TrainConfig, learned: ArrayData, looked: ArrayData, shown: Scenes,
    rows: dict[str, ReaderFigures],
) -> None:  # fmt: skip
    """One model of one seed: its figures, untrained and trained, are added to its rows."""
    regions = region_maps(settings.model, looked)
    before = Learner(settings, torch.device(config.device)).model
    with tempfile.TemporaryDirectory() as folder:
        scores, place = train_on_arrays(
            settings, learned, looked, config.samples, of=in_memory(shown.classes), run_dir=folder, device=config.device
        )
        model, _ = load_model(place, torch.device(config.device))
    untrained = readers(before, title, looked, regions, shown.masks)
    for name, weights in readers(model, title, looked, regions, shown.masks).items():
        if name not in rows:
            rows[name] = ReaderFigures(title=name, regions=regions, weights=weights)
            if name == title:
                alike = np.ones((len(looked), int(regions.max()) + 1))
                rows[name].alike = agreement(alike, regions, shown.masks)
        rows[name].trained.append({"top1": scores["top1"], **agreement(weights, regions, shown.masks)})
        rows[name].untrained.append(agreement(untrained[name], regions, shown.masks))


def main(argv: list[str]) -> int:
    """Print the tables and save them, and a picture, under tests/benchmarks/results, after every seed."""
    config, record = begin("objects", BenchObjectsConfig, argv, ("torch", "numpy", "fast-slic"))
    if config.data and not config.name:
        record.name = "objects-camvid"
    record.say(f"{len(models())} models, {config.seeds} seeds each")
    title = "Windows of CamVid" if config.data else "Generated objects before clutter"
    train, shown = scenes_of(config)
    for rows in measure(config, train, shown):
        seeds = len(rows[0].trained)
        note = (
            f"{config.samples} training samples of {len(train.masks)} images, {seeds} seed{'s' * (seeds > 1)}; "
            f"{len(shown.masks)} other images looked at; {len(shown.classes)} classes: {', '.join(shown.classes)}."
        )
        record.tables = [figures(title, rows, shown.masks, note), differences(title, rows)]
        record.save()
        picture(record.path(".jpg"), rows, shown)
    for table in record.tables:
        sys.stdout.write(table.markdown() + "\n")
    return record.end()


def scenes_of(config: BenchObjectsConfig) -> tuple[Scenes, Scenes]:
    """Those that are learned from, and others that are looked at."""
    per_class, looked_at = config.images_per_class, config.images_per_class // 8
    if config.data:
        uri = f"{config.data}/camvid"
        return camvid_scenes(uri, "train", per_class), camvid_scenes(uri, "val", looked_at)
    return drawn_scenes(per_class, 0), drawn_scenes(looked_at, 1)
