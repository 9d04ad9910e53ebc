"""`focusvit show`: images beside their superpixels at several token budgets, as one picture."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from pipeline.commandline import parse
from pipeline.errors import UsageError
from pipeline.image.borders import draw_borders
from pipeline.image.image import decode_image
from pipeline.image.sheet import encode_picture, labelled_sheet
from pipeline.io import storage
from pipeline.io.json_text import json_text
from pipeline.options import ShowConfig
from pipeline.shards.dataset import Split, open_dataset
from pipeline.superpixels.hierarchy import cut
from pipeline.superpixels.segment import Superpixels

_WIDEST = 1.6  # aspect of the widest cell; wider images are made lower


class SheetRow(NamedTuple):
    """One line of a sheet."""

    caption: str
    rgb: np.ndarray  # uint8 (H, W, 3)
    superpixels: Superpixels


def main(argv: list[str]) -> int:
    """`focusvit show DIR --out sheet.png`."""
    config = parse(ShowConfig, argv, prog="focusvit show")
    dataset = open_dataset(config.uri)
    if config.split is None and not dataset.splits:
        raise UsageError(f"the data set at {dataset.uri} has no split yet; add one with `focusvit preprocess`.")
    split = dataset.split(config.split or next(iter(dataset.splits)))
    count = min(config.count, split.num_samples)
    say = sys.stderr if config.json else sys.stdout
    say.write(f"show: {count} of {split.num_samples} samples of {split.uri} ({split.name}), cut to {config.tokens}\n")
    rows = tqdm(_rows(split, count), total=count, desc="show", unit="sample", disable=None)
    sheet = contact_sheet(rows, config.budgets, cell_px=config.cell_px)
    out = storage.resolve(config.out)
    storage.put(out, encode_picture(sheet, out))
    height, width = sheet.shape[:2]
    content = {"out": out, "samples": count, "width_px": width, "height_px": height}
    line = f"show: {width} x {height} pixels, at {out}"
    sys.stdout.write((json_text(content) if config.json else line) + "\n")
    return 0


def _rows(split: Split, count: int) -> Iterable[SheetRow]:
    for i in np.linspace(0, split.num_samples - 1, count).round().astype(int):
        sample = split.read(int(i))
        class_name = "" if sample.class_id is None else split.classes[sample.class_id]
        name = sample.key if sample.key.startswith(class_name) else f"{class_name}  {sample.key}"
        yield SheetRow(name, decode_image(sample.image), sample.superpixels)


def contact_sheet(rows: Iterable[SheetRow], tokens: Sequence[int], cell_px: int = 320) -> np.ndarray:
    """uint8 (H, W, 3): a row per sample, the image first, then its cut to each of `tokens`, on white.

    A cut shows at most the regions that the sample has, and says how many these are.
    """
    cells = [cell for row in rows for cell in _cells(row, tokens, cell_px)]
    width = max(picture.shape[1] for _, picture in cells)
    centred = [(text, _centred(picture, width)) for text, picture in cells]
    return labelled_sheet(centred, "", columns=1 + len(tokens), cell_px=width)


def _cells(row: SheetRow, tokens: Sequence[int], cell_px: int) -> Iterator[tuple[str, np.ndarray]]:
    shown, (fine, merges) = _at_height(row.rgb, cell_px), row.superpixels
    yield row.caption, shown
    for k in tokens:
        most = min(k, len(merges) + 1)
        yield f"{'all ' * (most < k)}{most} superpixels", draw_borders(shown, cut(fine, merges, most))


def _centred(picture: np.ndarray, width: int) -> np.ndarray:
    left = (width - picture.shape[1]) // 2
    right = width - picture.shape[1] - left
    return cv2.copyMakeBorder(picture, 0, 0, left, right, cv2.BORDER_CONSTANT, value=(255, 255, 255))


def _at_height(rgb: np.ndarray, cell_px: int) -> np.ndarray:
    height, width = rgb.shape[:2]
    scale = min(cell_px / height, _WIDEST * cell_px / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
