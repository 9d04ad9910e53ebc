"""`bench original`: every row of the original repository with its costs and its pictures, by one command."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from focusvit.model.cost import ModelProfile, profile_models
from focusvit.model.model import FocusViT
from focusvit.predict.pictures import density_overlay, labelled_sheet, save_png, with_regions
from focusvit.recipes.original import originals
from focusvit.recipes.table import Recipe
from focusvit.weights.pretrained import load_pretrained
from tests.benchmarks.model.attended import by_area, patch_map, token_attention
from tests.benchmarks.model.throughput import photos_or_drawn, superpixels
from tests.benchmarks.record import TimedConfig, begin
from tests.benchmarks.report import Table


@dataclass(frozen=True, kw_only=True)
class OriginalBenchConfig(TimedConfig):
    """Costs of the original repository's rows, ViT-B/16 at 224 px, as the recipes `original_NAME` train them."""

    rows: tuple[str, ...] = ()
    """only these rows; () = all"""
    batch: int = 2
    """images of a forward and of a training step"""
    rounds: int = 3
    """forwards that are timed; the median is reported"""
    device: str = "cpu"
    pictures: str = ""
    """also draw each row's tokens and the attention of its class token on photos, as PNG files in this folder"""
    weights: str = ""
    """weights of a ViT-B/16 for the pictures of the rows that start from them; else all have random weights"""
    photos: str = ""
    """folder of photos; by default $FOCUSVIT_DATA/imagenet-sample, else drawn scenes"""

    def __post_init__(self) -> None:
        unknown = [name for name in self.rows if name not in originals()]
        if unknown:
            raise ValueError(f"--rows holds '{unknown[0]}'; there are {', '.join(originals())}")
        if self.batch < 1 or self.rounds < 1:
            raise ValueError(f"--batch is {self.batch} and --rounds {self.rounds}; both must be at least 1")
        self.check_clock(self.device)
        if self.weights and not self.pictures:
            raise ValueError("--weights are for the pictures: name a folder with --pictures")


def main(argv: list[str]) -> int:
    """Print the table, save it, draw the pictures."""
    config, record = begin("original", OriginalBenchConfig, argv, ("torch", "numpy"))
    rows = {name: row for name, row in originals().items() if not config.rows or name in config.rows}
    record.say(f"{len(rows)} rows on {config.device}, batch {config.batch}")
    record.facts["threads"] = torch.get_num_threads()
    record.add(cost_table(rows, config))
    if config.pictures:
        images, what = photos_or_drawn(config.photos, 4)
        for name, row in rows.items():
            place = str(Path(config.pictures) / f"{name}.png")
            save_png(place, row_picture(row, np.stack(images), config.weights, name))
        record.say(f"{len(rows)} pictures of {what} in {config.pictures}")
    return record.end()


def cost_table(rows: dict[str, Recipe], config: OriginalBenchConfig) -> Table:
    """One line a row; rows that differ only in where their weights come from are measured once."""
    measured: dict[tuple[object, ...], ModelProfile] = {}
    lines = []
    for name, row in rows.items():
        model = row.config.model
        key = (model, row.config.freeze)
        if key not in measured:
            measured[key] = profile_models(
                {name: model}, batch=config.batch, rounds=config.rounds, device=config.device, frozen=row.config.freeze,
                clock=config.timer,
            )[name]  # fmt: skip
        cost, patches = measured[key], model.num_patches
        lines.append(
            (name, f"{patches} -> {model.tokens or patches}", f"{cost.parameters / 1e6:.2f}",
             f"{cost.trainable_parameters / 1e6:.2f}", f"{cost.weights_bytes / 2**20:.0f}",
             f"{cost.multiply_adds / 1e9:.3f}", f"{cost.latency_s * 1e3:.0f}", f"{cost.images_per_s:.1f}",
             f"{cost.inference_peak_bytes / 2**20:.0f}", f"{cost.training_peak_bytes / 2**20:.0f}")
        )  # fmt: skip
    unit = "CPU " if config.clock == "cpu" else ""
    columns = (
        "row", "patches -> tokens", "M parameters", "M trained", "weights, MiB", "G multiply-adds",
        f"{unit}ms a batch", f"images/{unit}s", "inference peak, MiB", "training peak, MiB",
    )  # fmt: skip
    note = (
        f"fp32, batch {config.batch}, median of {config.rounds} synchronised forwards after one more, superpixels not "
        "included (they come with the shards). Peaks: weights, inputs, activations of the whole batch at a time; in "
        "training gradients and AdamW. "
        "Each row is timed by itself; `bench model` has the paired comparison."
    )
    return Table(title="Rows of the original repository", columns=columns, rows=lines, note=note)


def row_picture(row: Recipe, images: np.ndarray, weights: str, name: str) -> np.ndarray:
    """uint8 RGB: images (B, H, W, 3) with the borders of the row's tokens, what these keep, where the class looks."""
    torch.manual_seed(0)
    model = FocusViT(row.config.model).eval()
    source = "random weights"
    if row.config.init_from and weights:
        load_pretrained(model, weights)
        source = Path(weights).name
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    config = model.config
    if config.needs_maps and config.tokens is not None:
        maps = np.stack([superpixels(image, config.tokens) for image in images])
        seen = model.forward_intermediates(pixels, torch.from_numpy(maps))
    else:
        maps = np.stack([patch_map(config.grid, config.image_size)] * len(images))
        seen = model.forward_intermediates(pixels)
    cells = [("", with_regions(*one)) for one in zip(images, maps)]
    for image, region_map, weights in zip(images, maps, token_attention(model, seen)):
        density = by_area(weights, region_map)
        cells.append((f"attention with {source}", density_overlay(image, region_map, density, density.max())))
    return labelled_sheet(cells, f"{name}: {row.about}", columns=len(images))
