"""Pictures of what the model is given and what it looks at. numpy in, uint8 RGB out; only figures need matplotlib."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from pipeline.image.borders import draw_borders
from pipeline.image.sheet import encode_picture, labelled_sheet
from pipeline.io import storage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIDE_PX = 224  # small images are enlarged to about this side, so that a border line stays thinner than a region
_MAX_NAMES = 60  # more class names than this cannot be read on one axis
_MAX_CELLS = 16  # up to this many classes the counts are written into the cells


def superpixel_overlay(images: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """One sheet of images and the borders of their regions, as the model sees them, and below each its regions in their
    mean colour, which shows what pooling keeps.

    images uint8 (B, H, W, 3); maps integer (B, h, w) at any resolution of the same frame. Returns uint8 RGB.
    """
    return labelled_sheet([("", with_regions(*one)) for one in zip(images, maps, strict=True)], "", columns=8)


def with_regions(image: np.ndarray, region_map: np.ndarray) -> np.ndarray:
    """The image with its borders above its mean colours, enlarged when it is small."""
    return np.concatenate([outlined(image, region_map), paint_means(*enlarge(image, region_map))])


def outlined(image: np.ndarray, region_map: np.ndarray) -> np.ndarray:
    """The image with the borders of its regions, enlarged when it is small."""
    return draw_borders(enlarge(image, region_map)[0], region_map)


def paint_means(image: np.ndarray, region_map: np.ndarray) -> np.ndarray:
    """Every region in its mean colour: what pooling keeps. uint8 (H, W, 3) and ids (H, W)."""
    ids = region_map.astype(np.int64)
    count = np.maximum(np.bincount(ids.ravel()), 1)
    sums = [np.bincount(ids.ravel(), weights=image[:, :, channel].ravel()) for channel in range(3)]
    return np.stack([total / count for total in sums], 1).round().astype(np.uint8)[ids]


def density_overlay(image: np.ndarray, region_map: np.ndarray, density: np.ndarray, top: float) -> np.ndarray:
    """`density` (K,) >= 0 painted over the grey image: clear at 0, then purple, orange, and yellow from `top` on.

    Colour follows the power 3/4, so that what is looked at a little is still seen beside a peak.
    """
    image, region_map = enlarge(image, region_map)
    heat = (np.clip(density / max(top, 1e-12), 0, 1) ** 0.75)[region_map.astype(np.int64)][:, :, None]
    steps = (70 + 185 * heat).astype(np.uint8)  # inferno without its black, which would hide the image
    colour = cv2.applyColorMap(steps, cv2.COLORMAP_INFERNO)[:, :, ::-1].astype(np.float32)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)[:, :, None]
    cover = 0.8 * heat
    return ((25 + 0.65 * grey) * (1 - cover) + colour * cover).clip(0, 255).astype(np.uint8)


def confusion_figure(counts: np.ndarray, classes: Sequence[str], *, title: str = "") -> "Figure":
    """Confusion matrix: counts (C, C), row = true class, column = predicted class; colour = share of the row."""
    from matplotlib.figure import Figure

    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = float(np.clip(0.28 * len(classes) + 2.2, 4.5, 13))
    figure = Figure(figsize=(side + 1, side), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    picture = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(picture, ax=axes, label="share of the true class", shrink=0.8)
    axes.set(xlabel="predicted", ylabel="true", title=title or f"top-1 {np.trace(counts) / max(counts.sum(), 1):.1%}")
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
    storage.put(uri, encode_picture(picture, ".png"))


def read_png(uri: str) -> np.ndarray:
    """A picture that `save_png` wrote, as uint8 RGB."""
    return np.asarray(cv2.imdecode(np.frombuffer(storage.read_bytes(uri), np.uint8), cv2.IMREAD_COLOR_RGB))


def enlarge(image: np.ndarray, region_map: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both at the same pixels, a whole number of times larger when the image is small. The map is never blended."""
    times = max(1, round(_SIDE_PX / max(image.shape[:2])))
    height, width = image.shape[0] * times, image.shape[1] * times
    small: Any = region_map.astype(np.int16 if region_map.dtype != np.uint8 else np.uint8)
    large_map = cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    if times == 1:
        return image, large_map
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST_EXACT), large_map
