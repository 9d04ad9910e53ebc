"""`bench slic`: superpixels by `focusvit.segment.torch_slic` beside fast-slic's: quality on BSDS500, time at 224 px."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from focusvit.model.cost import time_calls
from focusvit.segment.torch_slic import torch_slic
from pipeline.superpixels.segment import SuperpixelConfig, scale_for_segmentation
from pipeline.superpixels.slic import slic as fast_slic
from tests.benchmarks.model.throughput import photos_or_drawn
from tests.benchmarks.pipeline.quality import measure
from tests.benchmarks.pipeline.superpixels import Photo, enlarge_map, load_photos
from tests.benchmarks.record import TimedConfig, begin, data_folder
from tests.benchmarks.report import Table

ALLOWED = 0.01
_GPU_BATCH, _GPU_CALLS = 256, 50


@dataclass(frozen=True, kw_only=True)
class BenchSlicConfig(TimedConfig):
    """Batched SLIC in torch beside fast-slic. The time on a GPU is measured where there is one."""

    images: int = 100
    """photos of BSDS500 for the quality table"""
    tokens: tuple[int, ...] = (49, 64, 100, 196)
    batch_sizes: tuple[int, ...] = (1, 64, 256)
    rounds: int = 5
    data: str = ""
    """folder that holds bsds500/val; by default $FOCUSVIT_DATA"""
    photos: str = ""
    """folder of photos to time; by default $FOCUSVIT_DATA/imagenet-sample, else drawn scenes"""

    def __post_init__(self) -> None:
        if min(self.images, self.rounds, *self.tokens, *self.batch_sizes) < 1:
            raise ValueError("--images, --rounds, --tokens and --batch-sizes must be at least 1")


def main(argv: list[str]) -> int:
    """Print the tables and save them under tests/benchmarks/results."""
    config, record = begin("slic", BenchSlicConfig, argv, ("torch", "fast-slic", "numpy", "scipy"))
    folder = Path(data_folder("bsds500/val", config.data and f"{config.data}/bsds500/val", "--data"))
    record.say(f"{config.images} photos of {folder}, K = {config.tokens}, {config.rounds} rounds")
    scenes, what = photos_or_drawn(config.photos, max(config.batch_sizes))
    scenes = [scenes[i % len(scenes)] for i in range(max(config.batch_sizes))]
    record.facts |= {"threads": torch.get_num_threads(), "clock": config.clock, "timed": f"{what} at 224 px"}
    record.add(time_table(config, scenes))
    record.add(quality_table(config, list(load_photos(folder, config.images))))
    return record.end()


def quality_table(config: BenchSlicConfig, photos: Sequence[Photo]) -> Table:
    """Both at half of a short side of 256 px, judged at full size against several human outlines of each photo."""
    default = SuperpixelConfig()
    ways: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
        "fast-slic": lambda rgb, k: fast_slic(
            scale_for_segmentation(rgb, default), k, default.compactness, default.iterations
        ),
        "torch": lambda rgb, k: torch_map(rgb, k),
        "torch, compactness 10": lambda rgb, k: torch_map(rgb, k, compactness=10.0),
        "torch, compactness 20": lambda rgb, k: torch_map(rgb, k, compactness=20.0),
        "torch, 5 iterations": lambda rgb, k: torch_map(rgb, k, iterations=5),
    }
    rows: list[list[object]] = []
    for tokens in config.tokens:
        found: dict[str, list[tuple[float, ...]]] = {name: [] for name in ways}
        regions: dict[str, list[int]] = {name: [] for name in ways}
        for photo in tqdm(photos, desc=f"K = {tokens}", unit="photo", disable=None):
            for name, way in ways.items():
                small = way(photo.small, tokens)
                regions[name].append(len(np.unique(small)))
                score = measure(enlarge_map(small, photo.rgb.shape[:2]), photo.rgb, photo.truths)
                found[name].append(astuple(score))
        means = {name: np.mean(values, axis=0) for name, values in found.items()}
        for name, figures in means.items():
            gap = figures[0] - means["fast-slic"][0]
            verdict = "" if name == "fast-slic" else f"{gap:+.4f} {'yes' if gap >= -ALLOWED else 'NO'}"
            rows.append([tokens, name, *(f"{x:.4f}" for x in figures), f"{np.mean(regions[name]):.1f}", verdict])
    return Table(
        title=f"Quality on {len(photos)} photos of BSDS500",
        columns=["K", "way", "ASA", "UE", "BR", "EV", "regions", f"ASA against fast-slic, within {ALLOWED}"],
        rows=rows,
        note="ASA achievable segmentation accuracy, BR boundary recall (2 px), EV explained variation: higher is "
        "better. UE under-segmentation error: lower is better. fast-slic joins fragments and gives about K regions; "
        "torch gives exactly K, which need not be connected.",
    )


def torch_map(rgb: np.ndarray, tokens: int, **settings: float) -> np.ndarray:
    """uint8 (H, W, 3) -> ids (H / 2, W / 2), an odd last row or column left out."""
    height, width = (side // 2 * 2 for side in rgb.shape[:2])
    image = torch.from_numpy(np.ascontiguousarray(rgb[:height, :width])).permute(2, 0, 1)[None]
    return torch_slic(image, tokens, **settings)[0].numpy()  # type: ignore[arg-type]


def time_table(config: BenchSlicConfig, scenes: Sequence[np.ndarray]) -> Table:
    """Milliseconds an image on the CPU, taking turns; microseconds on a GPU between two of its own events."""
    batch = torch.from_numpy(np.stack(scenes)).permute(0, 3, 1, 2).contiguous()
    default, rows = SuperpixelConfig(), []
    for tokens in (min(config.tokens), max(config.tokens)):

        def one_by_one(count: int, k: int = tokens) -> None:
            for scene in scenes[:count]:
                fast_slic(scale_for_segmentation(scene, default), k, default.compactness, default.iterations)

        for size in config.batch_sizes:
            calls: dict[str, Callable[[], object]] = {
                "fast-slic, one thread": lambda size=size: one_by_one(size),  # type: ignore[misc]
                f"torch, {torch.get_num_threads()} threads": lambda size=size, k=tokens: torch_slic(batch[:size], k),  # type: ignore[misc]
            }
            rounds = config.rounds * (1 if size > 8 else 10)
            seconds = time_calls(calls, rounds, clock=config.timer)
            base = seconds["fast-slic, one thread"]
            for name, times in seconds.items():
                ratio = statistics.median(b / a for a, b in zip(base, times))
                rows.append(
                    [tokens, "cpu", size, name, f"{statistics.median(times) / size * 1e3:.2f} ms", f"{ratio:.2f}"]
                )
        rows += _gpu_rows(batch, tokens)
    return Table(
        title=f"Time an image at 224 px ({config.clock} clock on the CPU)",
        columns=["K", "device", "batch", "way", "an image", "of fast-slic's time"],
        rows=rows,
        note="fast-slic with the scaling to half size, torch with the conversion to Lab; medians over rounds in which "
        "they take turns. GPU: goal under 5 us an image at batch 256, the median of calls between two CUDA events.",
    )


def _gpu_rows(batch: torch.Tensor, tokens: int) -> list[list[object]]:
    if not torch.cuda.is_available():
        return [[tokens, "gpu", _GPU_BATCH, "torch", "no GPU", ""]]
    images = batch[torch.arange(_GPU_BATCH) % len(batch)].cuda()
    rows: list[list[object]] = []
    for name, call in {"torch": torch_slic, "torch, compiled": torch.compile(torch_slic)}.items():
        micros = []
        for turn in range(_GPU_CALLS + 10):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call(images, tokens)
            end.record()
            torch.cuda.synchronize()
            if turn >= 10:
                micros.append(start.elapsed_time(end) * 1e3 / _GPU_BATCH)
        rows.append([tokens, torch.cuda.get_device_name(), _GPU_BATCH, name, f"{statistics.median(micros):.2f} us", ""])
    return rows
