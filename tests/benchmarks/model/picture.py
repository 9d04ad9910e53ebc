"""`bench picture`, for the README: a photo, its superpixels at three budgets, and where a checkpoint looks."""

import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from sklearn.datasets import load_sample_images

from focusvit.predict.look import Eye
from focusvit.predict.pictures import enlarge, labelled_sheet, outlined
from focusvit.runs.checkpoint import load_model
from pipeline.commandline import parse
from pipeline.io import storage
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


def strip(eye: Eye, data: bytes) -> np.ndarray:
    """uint8 RGB: the view of the model, its superpixels at `BUDGETS`, and its last block's attention on regions."""
    tokens = eye.model.config.tokens
    view = eye.view(data, tokens)
    cells = [("a photo", enlarge(view.image, view.map)[0])]
    for budget in BUDGETS:
        cut = eye.view(data, budget)
        cells.append((f"{budget} superpixels", outlined(cut.image, cut.map)))
    last_block = eye.attention(view, eye.seen(view, tokens))[-2]  # then follows the rollout, which is over patches
    cells.append((f"where it looks ({tokens} superpixels)", last_block[1]))
    return labelled_sheet(cells, f"answer: {eye.answer(eye.seen(view, tokens))}", columns=len(cells))


def main(argv: list[str]) -> int:
    """Draw the strip as a small JPEG."""
    config = parse(PictureConfig, argv, prog="python -m tests.benchmarks picture")
    eye = Eye(*load_model(storage.resolve(config.checkpoint), "cpu"))
    if config.image:
        data = Path(config.image).read_bytes()
    else:
        flower = load_sample_images().images[1]
        data = cv2.imencode(".png", flower[:, 107:534, ::-1])[1].tobytes()  # the middle square
    picture = strip(eye, data)
    cv2.imwrite(config.out, picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    sys.stdout.write(f"picture: {picture.shape[1]} x {picture.shape[0]} px, {Path(config.out).stat().st_size} bytes\n")
    return 0
