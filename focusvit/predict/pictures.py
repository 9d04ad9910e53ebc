"""Pictures of what the model is given and what it looks at. numpy in, uint8 RGB out; only figures need matplotlib."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.io import storage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIDE_PX = 224  # small images are enlarged to about this side, so that a border line stays thinner than a region
_LINE = (255, 220, 0)
_SHADE = (20, 20, 20)
_INK = (30, 30, 30)
_MAX_NAMES = 60  # more class names than this cannot be read on one axis
_MAX_CELLS = 16  # up to this many classes the counts are written into the cells


def superpixel_overlay(images: np.ndarray, maps: np.ndarray, *, columns: int = 8, fill: bool = True) -> np.ndarray:
    """One picture of images and the borders of their regions, exactly as the model sees them.

    images uint8 (B, H, W, 3); maps integer (B, h, w) at any resolution of the same frame. With `fill` every image is
    followed below by its regions painted in their mean colour, which shows what pooling keeps. Returns uint8 RGB.
    Raises ValueError when the two do not belong together.
    """
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise ValueError(f"images must be uint8 (B, H, W, 3), not {images.dtype} {images.shape}")
    if maps.ndim != 3 or len(maps) != len(images):
        raise ValueError(f"maps must be (B, h, w) with B = {len(images)}, not {maps.shape}")
    cells = []
    for image, region_map in zip(images, maps):
        large, large_map = enlarge(image, region_map)
        rows = [draw_regions(large, large_map)]
        if fill:
            rows.append(paint_means(large, large_map))
        cells.append(np.concatenate(rows))
    return tile(cells, columns=columns)


def draw_regions(image: np.ndarray, region_map: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) with a line on every border of `region_map` (integer, (H, W)): a pixel is drawn when its right or
    lower neighbour lies in another region. A dark pixel beside it keeps the line visible on light and dark ground.
    """
    picture = image.copy()
    border = border_pixels(region_map)
    shade = np.zeros_like(border)
    shade[1:, 1:] = border[:-1, :-1]
    picture[shade & ~border] = _SHADE
    picture[border] = _LINE
    return picture


def border_pixels(region_map: np.ndarray) -> np.ndarray:
    """bool (H, W): True where the right or the lower neighbour has another id."""
    border = np.zeros(region_map.shape, bool)
    border[:, :-1] = region_map[:, :-1] != region_map[:, 1:]
    border[:-1] |= region_map[:-1] != region_map[1:]
    return border


def paint_regions(values: np.ndarray, region_map: np.ndarray) -> np.ndarray:
    """Token values painted back on pixels: values (K, ...) and map (H, W) with ids 0..K-1 give (H, W, ...)."""
    top = int(region_map.max())
    if top >= len(values):
        raise ValueError(f"the map holds region {top} and there are values for {len(values)} regions")
    return values[region_map.astype(np.int64)]


def paint_means(image: np.ndarray, region_map: np.ndarray) -> np.ndarray:
    """Every region in its mean colour: what pooling keeps. uint8 (H, W, 3) and ids (H, W)."""
    return paint_regions(mean_colours(image, region_map), region_map)


def density_overlay(image: np.ndarray, region_map: np.ndarray, density: np.ndarray, top: float) -> np.ndarray:
    """`density` (K,) >= 0 painted over the grey image: clear at 0, then purple, orange, and yellow from `top` on.

    Colour follows the power 3/4, so that what is looked at a little is still seen beside a peak.
    """
    image, region_map = enlarge(image, region_map)
    heat = paint_regions(np.clip(density / max(top, 1e-12), 0, 1) ** 0.75, region_map)[:, :, None]
    steps = (70 + 185 * heat).astype(np.uint8)  # inferno without its black, which would hide the image
    colour = cv2.applyColorMap(steps, cv2.COLORMAP_INFERNO)[:, :, ::-1].astype(np.float32)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)[:, :, None]
    cover = 0.8 * heat
    return ((25 + 0.65 * grey) * (1 - cover) + colour * cover).clip(0, 255).astype(np.uint8)


def labelled_sheet(
    cells: Sequence[tuple[str, np.ndarray]], title: str, *, columns: int, note: str = "", cell_px: int = 240
) -> np.ndarray:
    """(label, uint8 RGB) in rows of at most `columns` on white, each `cell_px` wide, its label below;
    the title above, the note at the end.

    Raises ValueError for no cells.
    """
    if not cells:
        raise ValueError("a sheet needs at least one cell")
    rows = -(-len(cells) // columns)
    columns, gap, head, foot = -(-len(cells) // rows), 12, 44, 26  # rows of equal length
    scaled = [cv2.resize(p, (cell_px, round(p.shape[0] * cell_px / p.shape[1])), interpolation=cv2.INTER_AREA
              if p.shape[1] > cell_px else cv2.INTER_NEAREST) for _, p in cells]  # fmt: skip
    height = max(picture.shape[0] for picture in scaled) + foot
    size = (gap + columns * (cell_px + gap), head + rows * (height + gap) + (foot if note else 0))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    _write(draw, (gap, head // 2), title, size[0] - 2 * gap, 20)
    for index, ((label, _), picture) in enumerate(zip(cells, scaled)):
        x, y = gap + index % columns * (cell_px + gap), head + index // columns * (height + gap)
        sheet.paste(Image.fromarray(picture), (x, y))
        _write(draw, (x, y + picture.shape[0] + foot // 2), label, cell_px, 14)
    if note:
        _write(draw, (gap, size[1] - foot // 2 - 4), note, size[0] - 2 * gap, 14)
    return np.asarray(sheet)


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, width_px: int, size: int) -> None:
    """Text from `place` to the right, shortened in its middle to `width_px`."""
    font = ImageFont.load_default(size=size)
    keep = min(len(text), width_px // 3)  # no letter is narrower than 3 px
    while keep > 4 and draw.textlength(_shortened(text, keep), font=font) > width_px:
        keep -= 1
    draw.text(place, _shortened(text, keep), fill=_INK, font=font, anchor="lm")


def _shortened(text: str, keep: int) -> str:
    return text if keep >= len(text) else f"{text[: keep - keep // 2 - 1]}…{text[len(text) - keep // 2 :]}"


def heat_overlay(image: np.ndarray, region_map: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Which regions one query looks at: weights (K,) >= 0 painted over a dimmed grey image, brightest = largest.

    The weight of a region is shown as it is (not divided by its area); the scale is this picture's own maximum.
    """
    image, region_map = enlarge(image, region_map)
    peak = float(weights.max())
    heat = paint_regions(weights.astype(np.float32) / peak if peak > 0 else weights * 0.0, region_map)
    colour = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[:, :, ::-1]
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(grey, 0.4, np.ascontiguousarray(colour), 0.6, 0)


def captioned(image: np.ndarray, lines: Sequence[str]) -> np.ndarray:
    """The image with text lines on a dark strip below it. Characters the font lacks are shown as '?'."""
    height, line_px = image.shape[0], 16
    strip = np.full((line_px * len(lines) + 6, image.shape[1], 3), 24, np.uint8)
    for row, text in enumerate(lines):
        plain = text.encode("ascii", "replace").decode()
        place = (4, line_px * (row + 1))
        cv2.putText(strip, plain, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (235, 235, 235), 1, cv2.LINE_AA)
    return np.concatenate([image, strip]) if height else strip


def tile(cells: Sequence[np.ndarray], *, columns: int, gap_px: int = 4) -> np.ndarray:
    """Cells (uint8 RGB, any sizes) on one dark sheet, `columns` in a row, in order."""
    height = max(cell.shape[0] for cell in cells)
    width = max(cell.shape[1] for cell in cells)
    columns = min(columns, len(cells))
    rows = -(-len(cells) // columns)
    sheet = np.full((rows * (height + gap_px) - gap_px, columns * (width + gap_px) - gap_px, 3), 12, np.uint8)
    for index, cell in enumerate(cells):
        y, x = index // columns * (height + gap_px), index % columns * (width + gap_px)
        sheet[y : y + cell.shape[0], x : x + cell.shape[1]] = cell
    return sheet


def confusion_figure(counts: np.ndarray, classes: Sequence[str], *, title: str = "") -> "Figure":
    """Confusion matrix: counts (C, C), row = true class, column = predicted class; colour = share of the row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = float(np.clip(0.28 * len(classes) + 2.2, 4.5, 13))
    figure = Figure(figsize=(side + 1, side), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)  # draws without a display
    axes = figure.add_subplot()
    picture = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(picture, ax=axes, label="share of the true class", shrink=0.8)
    axes.set(xlabel="predicted", ylabel="true", title=title or f"top-1 {_share_right(counts):.1%}")
    if len(classes) <= _MAX_NAMES:
        names = [name if len(name) <= 18 else name[:17] + "…" for name in classes]
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=7)
    if len(classes) <= _MAX_CELLS:
        for row, column in np.argwhere(counts):
            ink = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=7, color=ink)
    return figure


def figure_pixels(figure: "Figure") -> np.ndarray:
    """A matplotlib figure as uint8 RGB."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[:, :, :3])


def save_png(uri: str, picture: np.ndarray) -> None:
    """Write uint8 RGB to a path or store address; the file is complete or absent."""
    done, data = cv2.imencode(".png", np.ascontiguousarray(picture[:, :, ::-1]))
    if not done:
        raise ValueError(f"cannot encode a picture of shape {picture.shape} as PNG for {uri}")
    storage.put(uri, data.tobytes())


def read_png(uri: str) -> np.ndarray:
    """A picture that `save_png` wrote, as uint8 RGB."""
    bgr = cv2.imdecode(np.frombuffer(storage.read_bytes(uri), np.uint8), cv2.IMREAD_COLOR)
    if bgr is None:
        raise ValueError(f"{uri} is not a picture")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def enlarge(image: np.ndarray, region_map: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both at the same pixels, a whole number of times larger when the image is small. The map is never blended."""
    times = max(1, round(_SIDE_PX / max(image.shape[:2])))
    height, width = image.shape[0] * times, image.shape[1] * times
    small: Any = region_map.astype(np.int16 if region_map.dtype != np.uint8 else np.uint8)
    large_map = cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    if times == 1:
        return image, large_map
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST_EXACT), large_map


def mean_colours(image: np.ndarray, region_map: np.ndarray) -> np.ndarray:
    """uint8 (K, 3): mean colour of every region."""
    ids = region_map.ravel().astype(np.int64)
    count = np.maximum(np.bincount(ids), 1)
    sums = [np.bincount(ids, weights=image[:, :, channel].ravel()) for channel in range(3)]
    return np.stack([total / count for total in sums], 1).round().astype(np.uint8)


def _share_right(counts: np.ndarray) -> float:
    return float(np.trace(counts) / max(counts.sum(), 1))
