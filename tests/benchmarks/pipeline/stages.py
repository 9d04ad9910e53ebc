"""The stages of preprocessing one by one, and superpixels made at other times: the second part of the speed table."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from pipeline.image.image import ImageConfig, decode_image, prepare_image, read_header
from pipeline.image.png import decode_gray8, encode_gray8
from pipeline.sources import Reader
from pipeline.superpixels.connected import connected_regions
from pipeline.superpixels.hierarchy import fit
from pipeline.superpixels.merge_order import merge_order
from pipeline.superpixels.segment import SuperpixelConfig, scale_for_segmentation, segment_image
from pipeline.superpixels.slic import slic, slic_class
from tests.benchmarks.report import Table

_EPOCHS = 90
Stage = Callable[[int], Any]


def stage_table(rows: Sequence[dict[str, Any]], source: Reader) -> list[Table]:
    """Two tables: milliseconds of CPU per image for each stage; and for superpixels over a training of 90 epochs."""
    config, image = SuperpixelConfig(), ImageConfig()
    datas = [source.read(row["file"], row["offset"], row["length"]) for row in rows]
    stored = [prepare_image(data, image) for data in datas]
    rgbs = [rgb for _, _, rgb in stored]
    smalls = [scale_for_segmentation(rgb, config) for rgb in rgbs]
    labels = [slic(small, config.seed_regions, config.compactness, config.iterations) for small in smalls]
    labs = [cv2.cvtColor(small, cv2.COLOR_RGB2LAB) for small in smalls]
    regions = [connected_regions(label) for label in labels]
    found = [segment_image(rgb, config) for rgb in rgbs]
    pngs = [encode_gray8(sample.map) for sample in found]
    stages: dict[str, Stage] = {
        "read": lambda i: source.read(rows[i]["file"], rows[i]["offset"], rows[i]["length"]),
        "header": lambda i: read_header(datas[i]),
        "sha256": lambda i: hashlib.sha256(datas[i]).hexdigest(),
        "decode, resize, encode, decode again": lambda i: prepare_image(datas[i], image),
        "  of it: decode": lambda i: decode_image(datas[i]),
        "  of it: decode of what is stored": lambda i: decode_image(stored[i][0]),
        "reduce for segmentation": lambda i: scale_for_segmentation(rgbs[i], config),
        "fast-slic": lambda i: slic(smalls[i], config.seed_regions, config.compactness, config.iterations),
        "connected regions": lambda i: connected_regions(labels[i]),
        "Lab": lambda i: cv2.cvtColor(smalls[i], cv2.COLOR_RGB2LAB),
        "merge order": lambda i: merge_order(regions[i], labs[i], config.spatial_weight),
        "all of segment_image": lambda i: segment_image(rgbs[i], config),
        "map to PNG": lambda i: encode_gray8(found[i].map),
        "metadata to JSON": lambda i: json.dumps({"sha256": "0" * 64, "size": [1, 2], "superpixels": {"n": 1}}),
    }
    per_stage = Table(
        title="Stages, ms of CPU per image",
        columns=["stage", "median", "mean", "90 %"],
        rows=[[name, *_times(stage, len(rows))] for name, stage in stages.items()],
        note=f"Map PNG: {np.mean([len(png) for png in pngs]):.0f} bytes on average; "
        f"OpenCV's default PNG of the same map: {np.mean([_default_png(s.map) for s in found]):.0f}.",
    )
    return [per_stage, _moments_table(rgbs, found, pngs, config)]


def _moments_table(rgbs: Sequence[np.ndarray], found: Sequence[Any], pngs: Sequence[bytes], config: Any) -> Table:
    """Superpixels stored once, against those made in every epoch (SuiT) or every forward (the original repository)."""
    crops = [np.ascontiguousarray(cv2.resize(rgb, (224, 224), interpolation=cv2.INTER_AREA)) for rgb in rgbs]
    once = _mean(lambda i: (segment_image(rgbs[i], config), encode_gray8(found[i].map)), len(rgbs))
    each = _mean(
        lambda i: fit(decode_gray8(pngs[i]), found[i].merges, (0.1, 0.1, 0.8, 0.8), True, (224, 224), 196), len(rgbs)
    )
    rows = [["this pipeline", f"{once:.2f}", f"{each:.2f}", f"{once + _EPOCHS * each:.0f}"]]
    try:
        from skimage.segmentation import slic as skimage_slic
        from skimage.transform import rescale
    except ImportError:
        return _moments(rows)

    def suit(i: int) -> Any:
        small = (rescale(crops[i], 0.5, anti_aliasing=True, channel_axis=-1) * 255).astype(np.uint8)
        return slic_class()(num_components=196, compactness=10, num_threads=1).iterate(small)

    def first_repository(i: int) -> Any:
        normal = ((crops[i] / 255.0) - 0.5) / 0.5
        return skimage_slic(normal, n_segments=196, compactness=0.1, sigma=1.0, start_label=0, channel_axis=-1)

    for name, way, count in (
        ("SuiT: rescale and fast-slic in the loader", suit, len(rgbs)),
        ("original repository: scikit-image SLIC in forward", first_repository, min(20, len(rgbs))),
    ):
        cost = _mean(way, count)
        rows.append([name, "0", f"{cost:.2f}", f"{_EPOCHS * cost:.0f}"])
    return _moments(rows)


def _moments(rows: list[list[str]]) -> Table:
    return Table(
        title=f"Superpixels of an image: once, per epoch, and over {_EPOCHS} epochs (ms of CPU, K = 196, 224 px)",
        columns=["way", "once", "each epoch", f"{_EPOCHS} epochs"],
        rows=rows,
    )


def _default_png(gray: np.ndarray) -> int:
    return len(cv2.imencode(".png", gray)[1])


def _spent(stage: Stage, count: int) -> np.ndarray:
    stage(0)
    times = []
    for i in range(count):
        started = time.thread_time()
        stage(i)
        times.append((time.thread_time() - started) * 1e3)
    return np.array(times)


def _mean(stage: Stage, count: int) -> float:
    return float(_spent(stage, count).mean())


def _times(stage: Stage, count: int) -> tuple[str, ...]:
    times = _spent(stage, count)
    return f"{np.median(times):.3f}", f"{times.mean():.3f}", f"{np.quantile(times, 0.9):.3f}"
