"""Images whose values have more than 8 bits: which range they fill, and 8-bit pixels of that range.

OpenCV keeps the upper 8 of 16 bits, so an X-ray of 12 bits in a 16-bit file would come out in 16 gray levels.
"""

import io
import re
import warnings

import numpy as np
from PIL import Image, TiffImagePlugin

# TIFF tags
_BITS, _PHOTOMETRIC, _PLANES, _SAMPLE_FORMAT = 258, 262, 284, 339
_WHITE_IS_ZERO, _APART = 0, 2
_NUMBERS = {1: "unsigned", 2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}
_DARK = 64  # of 256 gray levels: a 16-bit file that reaches no more holds at most 14 bits


def unsuited(tags: object) -> str | None:
    """What is off with the numbers in a TIFF of these tags (an image's `tag_v2`), or None."""
    if not isinstance(tags, TiffImagePlugin.ImageFileDirectory_v2):
        return None
    bits, kind = max(tags.get(_BITS, (1,))), max(tags.get(_SAMPLE_FORMAT, (1,)))
    if bits <= 16 and kind not in (2, 3, 5, 6):
        return None
    numbers = _NUMBERS.get(kind, "unknown")
    return f"is a TIFF of {bits}-bit {numbers} numbers: write it with 8 or 16 bits, without sign"


def unsuited_tiff(data: bytes) -> str | None:
    """As `unsuited`, for a file that PIL does not open at all."""
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return None
    try:
        with warnings.catch_warnings(action="ignore"):
            file = io.BytesIO(data)
            tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
            file.seek(tags.next)
            tags.load(file)
            return unsuited(tags)
    except Exception:  # damaged as well: what PIL said holds
        return None


def largest_value(image: Image.Image, data: bytes) -> int:
    """The value that stands for white in a file of this kind: 255, 65535, or what a PPM file states; 0: none."""
    if image.format == "PPM":
        words = re.sub(rb"#[^\n]*", b"", data[:4096]).split(maxsplit=4)
        if words[0] in (b"P5", b"P6"):
            return int(words[3])
        return 255 if words[0] in (b"P1", b"P2", b"P3", b"P4") else 0  # OpenCV scales text itself; PFM has no white
    if image.format == "PNG":
        return 65535 if data[24] == 16 else 255
    tags = getattr(image, "tag_v2", {})
    return 65535 if image.format == "TIFF" and max(tags.get(_BITS, (1,))) > 8 else 255


def white_is_zero(image: Image.Image) -> bool:
    return image.format == "TIFF" and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO


def has_planes(image: Image.Image) -> bool:
    """Whether the channels lie one after another, which OpenCV reads at 8 bits only."""
    return image.format == "TIFF" and getattr(image, "tag_v2", {}).get(_PLANES) == _APART


def is_dark(pixels: np.ndarray, inverted: bool) -> bool:
    """Whether 8-bit pixels that OpenCV made of a 16-bit file show that its values had fewer bits."""
    return bool(pixels.min() > 255 - _DARK if inverted else pixels.max() < _DARK)


def to_8_bits(pixels: np.ndarray, largest: int, inverted: bool) -> np.ndarray:
    """uint8 of the shape of `pixels`, 0 to 255 for 0 to `largest`, rounded. Raises ValueError for values beyond it."""
    found = int(pixels.max())
    if found > largest:
        raise ValueError(f"holds the value {found}, more than {largest}")
    scale = (np.arange(largest + 1) * 510 + largest) // (2 * largest)
    return (scale[::-1] if inverted else scale).astype(np.uint8)[pixels]
