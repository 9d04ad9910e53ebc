"""`focusvit show`: images beside their superpixels at several token budgets, as one picture."""

import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from pipeline.commandline import parse
from pipeline.errors import UsageError
from pipeline.image.borders import draw_borders
from pipeline.image.image import decode_image
from pipeline.io import storage
from pipeline.io.json_text import json_text
from pipeline.options import ShowConfig
from pipeline.shards.dataset import Split, open_dataset
from pipeline.superpixels.hierarchy import cut
from pipeline.superpixels.segment import Superpixels

_WIDEST = 1.6  # aspect of the widest cell; wider images are made lower
_INK = (40, 40, 40)


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
    if config.json:
        sys.stdout.write(json_text({"out": out, "samples": count, "width_px": width, "height_px": height}) + "\n")
    else:
        sys.stdout.write(f"show: {width} x {height} pixels, at {out}\n")
    return 0


def _rows(split: Split, count: int) -> Iterable[SheetRow]:
    for i in np.linspace(0, split.num_samples - 1, count).round().astype(int):
        sample = split.read(int(i))
        class_name = "" if sample.class_id is None else split.classes[sample.class_id]
        name = sample.key if sample.key.startswith(class_name) else f"{class_name}  {sample.key}"
        yield SheetRow(name, decode_image(sample.image), sample.superpixels)


def contact_sheet(rows: Iterable[SheetRow], tokens: Sequence[int], cell_px: int = 320) -> np.ndarray:
    """uint8 (H, W, 3): a row per sample, the image first, then its cut to each of `tokens`, on white.

    A cut shows at most the regions that the sample has; a smaller count stands below its picture. Raises ValueError
    for no rows.
    """
    lines = [([shown, *_cuts(shown, row, tokens)], row) for row in rows for shown in [_at_height(row.rgb, cell_px)]]
    if not lines:
        raise ValueError("a contact sheet needs at least one row")
    width = max(cells[0].shape[1] for cells, _ in lines)
    gap, head, foot = max(4, cell_px // 32), max(24, cell_px // 9), max(16, cell_px // 14)
    columns = len(tokens) + 1
    heights = [cells[0].shape[0] for cells, _ in lines]
    sheet = Image.new("RGB", (gap + columns * (width + gap), head + sum(heights) + len(lines) * (foot + gap)), "white")
    draw = ImageDraw.Draw(sheet)
    title = ImageFont.load_default(size=max(11, cell_px // 16))
    small = ImageFont.load_default(size=max(9, cell_px // 24))
    for i, text in enumerate(["image", *(f"{k} superpixels" for k in tokens)]):
        draw.text((gap + i * (width + gap) + width // 2, head // 2), text, fill=_INK, font=title, anchor="mm")
    top = head
    for (cells, row), height in zip(lines, heights):
        for i, cell in enumerate(cells):
            left = gap + i * (width + gap)
            sheet.paste(Image.fromarray(cell), (left + (width - cell.shape[1]) // 2, top))
            note = row.caption if i == 0 else _missing(tokens[i - 1], row.superpixels)
            draw.text((left + width // 2, top + height + foot // 2), note, fill=_INK, font=small, anchor="mm")
        top += height + foot + gap
    return np.asarray(sheet)


def encode_picture(rgb: np.ndarray, name: str) -> bytes:
    """The bytes of a .png or .jpg file, by the ending of `name`."""
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    if name.lower().endswith(".png"):
        return cv2.imencode(".png", bgr)[1].tobytes()
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def _cuts(shown: np.ndarray, row: SheetRow, tokens: Sequence[int]) -> list[np.ndarray]:
    fine, merges = row.superpixels
    return [draw_borders(shown, cut(fine, merges, min(k, len(merges) + 1))) for k in tokens]


def _missing(k: int, superpixels: Superpixels) -> str:
    num_regions = len(superpixels.merges) + 1
    return "" if k <= num_regions else f"all {num_regions} regions"


def _at_height(rgb: np.ndarray, cell_px: int) -> np.ndarray:
    height, width = rgb.shape[:2]
    scale = min(cell_px / height, _WIDEST * cell_px / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
