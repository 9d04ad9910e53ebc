"""Superpixel borders as thin, smooth lines at display resolution."""

import cv2
import numpy as np
from scipy.ndimage import find_objects

LINE = (255, 214, 10)  # yellow: rare in photos, clear on dark and on light ground with the shadow beside it
_SHADOW = 0.55  # darkness of the shadow; keeps lines visible on snow and sky
_OVERSAMPLING = 3  # border pixels are found on a grid this much finer than the picture, then averaged


def draw_borders(rgb: np.ndarray, regions: np.ndarray, line_px: float = 1.25) -> np.ndarray:
    """`rgb`, uint8 (H, W, 3), with the borders of `regions`, integer (h, w) of any size with the same aspect.

    A map smaller than the picture is enlarged with smooth contours, so borders do not show its pixels. Returns a copy.
    """
    factor = max(1, round(_OVERSAMPLING * rgb.shape[0] / regions.shape[0]))
    return _blend(rgb, enlarge(regions, factor), line_px)


def enlarge(regions: np.ndarray, factor: int) -> np.ndarray:
    """int32 (h * factor, w * factor): each new pixel goes to the region with the largest blurred share there.

    Contours become smooth, to within half a pixel of the map, and every region keeps its place.
    """
    if factor == 1:
        return regions.astype(np.int32)
    height, width = regions.shape
    best = np.zeros((height * factor, width * factor), np.float32)
    large = np.repeat(np.repeat(regions.astype(np.int32), factor, axis=0), factor, axis=1)
    for region, box in enumerate(find_objects(regions.astype(np.int32) + 1)):
        if box is None:  # an id that no pixel has
            continue
        y0, y1, x0, x1 = max(0, box[0].start - 3), box[0].stop + 3, max(0, box[1].start - 3), box[1].stop + 3
        y1, x1 = min(height, y1), min(width, x1)
        inside = (regions[y0:y1, x0:x1] == region).astype(np.float32)
        blurred = cv2.GaussianBlur(inside, (0, 0), 0.8, borderType=cv2.BORDER_REPLICATE)
        share = cv2.resize(blurred, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
        window = np.s_[y0 * factor : y1 * factor, x0 * factor : x1 * factor]
        wins = share > best[window]
        best[window][wins] = share[wins]
        large[window][wins] = region
    return large


def _blend(rgb: np.ndarray, large: np.ndarray, line_px: float) -> np.ndarray:
    height, width = rgb.shape[:2]
    edge = np.zeros(large.shape, np.uint8)
    edge[:, 1:] |= large[:, 1:] != large[:, :-1]
    edge[1:] |= large[1:] != large[:-1]
    scale = large.shape[0] / height
    line = _coverage(edge, line_px * scale, (width, height))
    shadow = _coverage(edge, (line_px + 1.5) * scale, (width, height))
    picture = rgb * (1 - _SHADOW * shadow) if shadow.any() else rgb.astype(np.float32)
    return np.clip(picture * (1 - line) + np.array(LINE, np.float32) * line + 0.5, 0, 255).astype(np.uint8)


def _coverage(edge: np.ndarray, thickness: float, size: tuple[int, int]) -> np.ndarray:
    """float32 (H, W, 1) in [0, 1]: how much of each display pixel a line of this thickness covers."""
    side = max(1, round(thickness))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    thick = cv2.dilate(edge, disc).astype(np.float32)
    return cv2.resize(thick, size, interpolation=cv2.INTER_AREA)[..., None]
