"""`bench superpixels`: do superpixels follow what people outline? Every setting beside the one in use.

Data: BSDS500 (`$FOCUSVIT_DATA/bsds500/val`, 100 photos, about five human segmentations each). Photos are reduced to a
short side of 256 as in preprocessing; maps are enlarged to the photo and compared with the outlines at full size.
"""

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from pipeline.care.contact_sheet import SheetRow, contact_sheet
from pipeline.image.image import ImageConfig, decode_image, prepare_image
from pipeline.image.sheet import encode_picture
from pipeline.superpixels.hierarchy import cut
from pipeline.superpixels.segment import LIGHT, SuperpixelConfig, scale_for_segmentation, segment_image
from pipeline.superpixels.slic import slic
from tests.benchmarks.pipeline.fit import split_table, time_table
from tests.benchmarks.pipeline.quality import measure
from tests.benchmarks.record import RecordConfig, begin, data_folder
from tests.benchmarks.report import ROOT, Table

BUDGETS = (49, 64, 100, 196)
ALLOWED = 0.002  # a difference smaller than this is none
PEERS = ROOT / "tests" / "benchmarks" / "peers"
FULL = 340  # pixels per region at which a photo of 256 x 341 is segmented at full size
Segmenter = Callable[[np.ndarray, int], np.ndarray]  # (rgb, k) -> map


@dataclass(frozen=True, kw_only=True)
class BenchConfig(RecordConfig):
    """Quality of superpixels on BSDS500, and the time of each step."""

    images: int = 100
    """Take the first so many photos."""
    opencv_python: str = ""
    """A Python that has opencv-contrib (see tests/benchmarks/peers/opencv_slic.py); without it OpenCV is left out."""
    data: str = ""
    """Folder that holds bsds500/val; by default $FOCUSVIT_DATA."""

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ValueError(f"--images is {self.images}; it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Photo:
    rgb: np.ndarray  # as outlined
    small: np.ndarray  # as preprocessing stores it
    truths: list[np.ndarray]


def main(argv: list[str]) -> int:
    """Print the tables and save them under tests/benchmarks/results."""
    packages = ("fast-slic", "opencv-python-headless", "numba", "numpy", "scikit-image", "scipy")
    config, record = begin("superpixels", BenchConfig, argv, packages)
    folder = Path(data_folder("bsds500/val", config.data and f"{config.data}/bsds500/val", "--data"))
    cv2.setNumThreads(1)
    photos = list(load_photos(folder, config.images))
    record.say(f"{len(photos)} photos of {folder}, K = {BUDGETS}")
    record.facts["photos"] = len(photos)
    ways = _segmenters() | _scikit_image()
    scores = {name: _score(name, photos, segmenter) for name, segmenter in ways.items()}
    if config.opencv_python:
        scores["OpenCV SLIC"] = _score_opencv(photos, config.opencv_python)
    images = [photo.small for photo in photos]
    record.add(_quality_table(scores), _gap_table(scores), _small_table(photos), split_table(images))
    record.add(time_table(images))
    record.say(f"wrote {_picture(record.path('-cuts.jpg'))}")
    return record.end()


def load_photos(folder: Path, count: int) -> Iterator[Photo]:
    from scipy.io import loadmat

    for path in sorted((folder / "images").glob("*.jpg"))[:count]:
        truths = loadmat(folder / "groundTruth" / f"{path.stem}.mat")["groundTruth"][0]
        data = path.read_bytes()
        rgb = decode_image(data)
        small = prepare_image(data, ImageConfig())[2]
        yield Photo(rgb=rgb, small=small, truths=[truth[0, 0]["Segmentation"].astype(np.int64) for truth in truths])


def _segmenters() -> dict[str, Segmenter]:
    """Every way to be compared, by name. The first two are the pair that the defaults are judged by."""
    default = SuperpixelConfig()
    full = replace(default, pixels_per_region=FULL)
    ways: dict[str, Segmenter] = {
        "cut (default)": _cuts(default),
        "direct SLIC": _direct(default),
        "direct SLIC, compactness 5": _direct(replace(default, compactness=5.0)),
        "direct SLIC, compactness 15": _direct(replace(default, compactness=15.0)),
        "direct SLIC, compactness 20": _direct(replace(default, compactness=20.0)),
        "direct SLIC, full size": _direct(full),
        "direct SLIC, full size, compactness 20": _direct(replace(full, compactness=20.0)),
        "cut, full size": _cuts(full),
        "cut, SLIC seeds 256": _cuts(replace(default, seed_regions=256)),
        "cut, SLIC seeds 600": _cuts(replace(default, seed_regions=600)),
        "cut, at most 196 stored": _cuts(replace(default, fine_regions=196, pixels_per_region=111)),
        "cut, compactness 5": _cuts(replace(default, compactness=5.0)),
        "cut, compactness 20": _cuts(replace(default, compactness=20.0)),
        "cut, 5 iterations": _cuts(replace(default, iterations=5)),
        "cut, spatial weight 0": _cuts(replace(default, spatial_weight=0.0)),
        "cut, spatial weight 2": _cuts(replace(default, spatial_weight=2.0)),
        "cut, spatial weight 8": _cuts(replace(default, spatial_weight=8.0)),
        "grid": lambda rgb, k: _grid(rgb.shape[:2], k),
    }
    return ways


def _cuts(config: SuperpixelConfig) -> Segmenter:
    def segment(rgb: np.ndarray, k: int) -> np.ndarray:
        fine, merges = segment_image(rgb, config)
        return cut(fine, merges, min(k, len(merges) + 1))

    return segment


def _direct(config: SuperpixelConfig) -> Segmenter:
    return lambda rgb, k: slic(scale_for_segmentation(rgb, config), k, config.compactness, config.iterations)


def _grid(shape: tuple[int, ...], k: int) -> np.ndarray:
    rows = max(1, round((k * shape[0] / shape[1]) ** 0.5))
    columns = max(1, round(k / rows))
    row, column = np.arange(shape[0]) * rows // shape[0], np.arange(shape[1]) * columns // shape[1]
    return row[:, None] * columns + column


def _scikit_image() -> dict[str, Segmenter]:
    """scikit-image's SLIC on the same reduced image, where it is installed."""
    try:
        from skimage.segmentation import slic as skimage_slic
    except ImportError:
        return {}
    default = SuperpixelConfig()
    return {
        "scikit-image SLIC": lambda rgb, k: skimage_slic(
            scale_for_segmentation(rgb, default), n_segments=k, compactness=10, start_label=0
        )
    }


@dataclass(frozen=True, kw_only=True)
class Score:
    figures: dict[int, np.ndarray]  # by k: (4,) means of ASA, UE, BR, EV
    regions: dict[int, float]
    ms: float  # median of one call at K = 196


def _score(name: str, photos: Sequence[Photo], segmenter: Segmenter) -> Score:
    figures: dict[int, list[tuple[float, ...]]] = {k: [] for k in BUDGETS}
    regions: dict[int, list[int]] = {k: [] for k in BUDGETS}
    times = []
    for photo in tqdm(photos, desc=name, unit="photo", disable=None):
        for k in BUDGETS:
            started = time.thread_time()
            found = segmenter(photo.small, k)
            if k == BUDGETS[-1]:
                times.append(time.thread_time() - started)
            large = enlarge_map(found, photo.rgb.shape[:2])
            figures[k].append(astuple(measure(large, photo.rgb, photo.truths)))
            regions[k].append(len(np.unique(found)))
    return Score(
        figures={k: np.mean(rows, axis=0) for k, rows in figures.items()},
        regions={k: float(np.mean(counts)) for k, counts in regions.items()},
        ms=float(np.median(times)) * 1e3,
    )


def _score_opencv(photos: Sequence[Photo], python: str) -> Score:
    """OpenCV's SLIC on the same reduced images, in its own environment: contrib would replace the OpenCV in use."""
    with tempfile.TemporaryDirectory() as folder:
        question, answer = Path(folder) / "images.npz", Path(folder) / "labels.npz"
        images: dict[str, Any] = {
            str(i): scale_for_segmentation(photo.small, SuperpixelConfig()) for i, photo in enumerate(photos)
        }
        np.savez(question, budgets=np.array(BUDGETS), **images)
        subprocess.run([python, PEERS / "opencv_slic.py", question, answer], check=True)
        with np.load(answer) as file:
            found = {name: file[name] for name in file.files}
    at = {photo.small.tobytes(): i for i, photo in enumerate(photos)}
    score = _score("OpenCV SLIC", photos, lambda rgb, k: found[f"{at[rgb.tobytes()]}-{k}"])
    return replace(score, ms=float(np.median(found["seconds"])) * 1e3)


def enlarge_map(regions: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    rows = ((np.arange(shape[0]) + 0.5) / shape[0] * regions.shape[0]).astype(int)
    columns = ((np.arange(shape[1]) + 0.5) / shape[1] * regions.shape[1]).astype(int)
    return regions[rows][:, columns]


def _quality_table(scores: dict[str, Score]) -> Table:
    rows = []
    for name, score in scores.items():
        cells = [
            " / ".join(f"{x:.4f}".lstrip("0") for x in score.figures[k]) + f" ({score.regions[k]:.0f})" for k in BUDGETS
        ]
        rows.append([name, *cells, f"{score.ms:.1f}"])
    return Table(
        title="Quality: ASA / UE / BR / EV (regions found)",
        columns=["way", *(f"K = {k}" for k in BUDGETS), "ms"],
        rows=rows,
        note="ASA achievable segmentation accuracy, BR boundary recall (2 px), EV explained variation: higher is "
        "better. UE under-segmentation error: lower is better. ms: CPU of one call at K = 196, median, with scaling. "
        "Unless a row says otherwise the image is segmented at half of 256 px.",
    )


def _gap_table(scores: dict[str, Score]) -> Table:
    mine = scores["cut (default)"]
    at_half = [name for name in scores if name.startswith("direct SLIC") and "full size" not in name]
    others = {"same compactness": at_half[:1], "best of all compactnesses, figure by figure": at_half}
    rows = []
    for label, names in others.items():
        for k in BUDGETS:
            figures = np.stack([scores[name].figures[k] for name in names])
            best = np.where([True, False, True, True], figures.max(0), figures.min(0))
            gap = mine.figures[k] - best
            good = bool(gap[0] >= -ALLOWED and gap[1] <= ALLOWED and gap[2] >= -ALLOWED)
            rows.append([label, k, *(f"{x:+.4f}" for x in gap), "yes" if good else "NO"])
    return Table(
        title="The cut minus direct SLIC at the same K and resolution",
        columns=["direct SLIC", "K", "ASA", "UE", "BR", "EV", f"ASA, UE, BR at least as good ({ALLOWED})"],
        rows=rows,
    )


def _small_table(photos: Sequence[Photo]) -> Table:
    """Photos reduced to the size of small data sets: enlarged for segmentation, against SLIC at their own size."""
    rows = []
    for side in (32, 64):
        tiny = [replace(photo, small=_short_side(photo.small, side)) for photo in photos]
        own = SuperpixelConfig(pixels_per_region=max(16, side * side * 3 // 2 // 256))
        ways = {"cut (default)": _cuts(SuperpixelConfig()), "direct SLIC": _direct(SuperpixelConfig())}
        if side == 64:
            ways |= {"cut (light)": _cuts(LIGHT), "direct SLIC, not enlarged": _direct(own)}
        for name, segmenter in ways.items():
            score = _score(f"{side} px: {name}", tiny, segmenter)
            cells = [" / ".join(f"{x:.4f}".lstrip("0") for x in score.figures[k]) for k in (49, 64)]
            rows.append([side, name, *cells, f"{score.regions[49]:.0f}, {score.regions[64]:.0f}", f"{score.ms:.2f}"])
    return Table(
        title="Small images: photos reduced to a short side of 32 and 64 px, judged at full size",
        columns=["px", "way", "K = 49", "K = 64", "regions", "ms"],
        rows=rows,
        note="light: `pipeline.superpixels.segment.LIGHT`, which does not enlarge.",
    )


def _short_side(rgb: np.ndarray, side: int) -> np.ndarray:
    scale = side / min(rgb.shape[:2])
    size = (round(rgb.shape[1] * scale), round(rgb.shape[0] * scale))
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)


def _picture(path: Path) -> Path:
    """Example cuts of photos that anyone may copy (scikit-image's own), or of drawn shapes without scikit-image."""
    try:
        from skimage import data

        photos = {"astronaut (NASA)": data.astronaut(), "coffee": data.coffee(), "chelsea": data.chelsea()}
    except ImportError:
        from pipeline.sources.embedded import SHAPE_CLASSES, draw_shape

        rng = np.random.default_rng(0)
        photos = {name: draw_shape(rng, i, 256)[0] for i, name in enumerate(SHAPE_CLASSES[:3])}
    rows = []
    for name, rgb in photos.items():
        small = _short_side(rgb, 256)
        rows.append(SheetRow(name, small, segment_image(small, SuperpixelConfig())))
    path.write_bytes(encode_picture(contact_sheet(rows, (16, 49, 100, 196), cell_px=256), path.name))
    return path
