"""`bench picture`, for the README: a photo, its superpixels at three budgets, and where a checkpoint looks."""

import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from sklearn.datasets import load_sample_images

from focusvit.predict.look import Eye
from focusvit.predict.pictures import labelled_sheet, outlined
from focusvit.runs.checkpoint import load_model
from pipeline.commandline import parse
from pipeline.io import storage
from pipeline.superpixels.hierarchy import cut
from pipeline.superpixels.segment import SuperpixelConfig, segment_image
from tests.benchmarks.report import RESULTS

BUDGETS = (16, 49, 100)


@dataclass(frozen=True, kw_only=True)
class PictureConfig:
    """One strip: photo, superpixels at three budgets, attention of a checkpoint."""

    checkpoint: str
    """a run or checkpoint of a model with superpixels"""
    image: str = ""
    """an image file; "" is the flower that scikit-learn ships"""
    out: str = str(RESULTS / "example.jpg")
    """where the picture goes"""


def strip(eye: Eye, photo: np.ndarray) -> np.ndarray:
    """uint8 RGB: the photo (uint8 RGB), its superpixels at `BUDGETS`, and the last block's attention on regions."""
    found = segment_image(photo, SuperpixelConfig())
    size = photo.shape[1::-1]
    cells = [("a photo", photo)]
    for budget in BUDGETS:
        regions = cv2.resize(cut(found.map, found.merges, budget), size, interpolation=cv2.INTER_NEAREST)
        cells.append((f"{budget} superpixels", outlined(photo, regions)))
    tokens = eye.model.config.tokens
    view = eye.view(cv2.imencode(".png", photo[..., ::-1])[1].tobytes(), tokens)
    last_block = eye.attention(view, eye.seen(view, tokens))[-2]  # then follows the rollout, which is over patches
    cells.append((f"where it looks, {tokens} superpixels", last_block[1]))
    return labelled_sheet(cells, "", columns=len(cells))[36:]  # without the room for a title


def main(argv: list[str]) -> int:
    """Draw the strip as a small JPEG."""
    config = parse(PictureConfig, argv, prog="python -m tests.benchmarks picture")
    eye = Eye(*load_model(storage.resolve(config.checkpoint), "cpu"))
    photo = cv2.imread(config.image)[..., ::-1] if config.image else load_sample_images().images[1][:, 107:534]
    picture = strip(eye, np.ascontiguousarray(photo))
    cv2.imwrite(config.out, picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 78])
    sys.stdout.write(f"picture: {picture.shape[1]} x {picture.shape[0]} px, {Path(config.out).stat().st_size} bytes\n")
    return 0
