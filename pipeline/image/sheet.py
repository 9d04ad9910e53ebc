"""One sheet of labelled pictures, and the file of a picture."""

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

_INK = (30, 30, 30)


def labelled_sheet(
    cells: Sequence[tuple[str, np.ndarray]], title: str, *, columns: int, note: str = "", cell_px: int = 240
) -> np.ndarray:
    """(label, uint8 RGB) in rows of at most `columns` on white, each `cell_px` wide, its label below; the title above,
    the note at the end. What is empty takes no room.
    """
    rows = -(-len(cells) // columns)
    columns, gap = -(-len(cells) // rows), 12  # rows of equal length
    head, foot = 44 if title else gap, 26 if any(label for label, _ in cells) else 0
    scaled = [cv2.resize(p, (cell_px, round(p.shape[0] * cell_px / p.shape[1])), interpolation=cv2.INTER_AREA
              if p.shape[1] > cell_px else cv2.INTER_NEAREST) for _, p in cells]  # fmt: skip
    height = max(picture.shape[0] for picture in scaled) + foot
    size = (gap + columns * (cell_px + gap), head + rows * (height + gap) + (26 if note else 0))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    _write(draw, (gap, head // 2), title, size[0] - 2 * gap, 20)
    for index, ((label, _), picture) in enumerate(zip(cells, scaled)):
        x, y = gap + index % columns * (cell_px + gap), head + index // columns * (height + gap)
        sheet.paste(Image.fromarray(picture), (x, y))
        _write(draw, (x, y + picture.shape[0] + foot // 2), label, cell_px, 14)
    if note:
        _write(draw, (gap, size[1] - 17), note, size[0] - 2 * gap, 14)
    return np.asarray(sheet)


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, width_px: int, size: int) -> None:
    """Text from `place` to the right, shortened in its middle to `width_px`."""
    font = _font(size)
    keep = min(len(text), width_px // 3)  # no letter is narrower than 3 px
    while keep > 4 and draw.textlength(_shortened(text, keep), font=font) > width_px:
        keep -= 1
    draw.text(place, _shortened(text, keep), fill=_INK, font=font, anchor="lm")


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """matplotlib's own: PIL's has no letters but those of English."""
    found = importlib.util.find_spec("matplotlib")  # without its import, which takes long
    assert found and found.origin
    return ImageFont.truetype(Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _shortened(text: str, keep: int) -> str:
    return text if keep >= len(text) else f"{text[: keep - keep // 2 - 1]}…{text[len(text) - keep // 2 :]}"


def encode_picture(rgb: np.ndarray, name: str) -> bytes:
    """The bytes of a .png or .jpg file, by the ending of `name`."""
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    if name.lower().endswith(".png"):
        return cv2.imencode(".png", bgr)[1].tobytes()
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
