"""What an image file states before its pixels; of the usual JPEG without PIL, which takes far longer to open it."""

from dataclasses import dataclass

MAX_PIXELS = 89_000_000  # 270 MB once decoded (where PIL begins to warn); the largest ImageNet photo has 25 million

_FRAMES = (0xC0, 0xC2)  # baseline and progressive
_TABLES = (0xC4, 0xDD)  # of codes, and how often to restart: they say nothing of size or kind
_QUANTISATION, _SCAN, _JFIF, _PROFILE, _ADOBE, _COMMENT = 0xDB, 0xDA, 0xE0, 0xE2, 0xEE, 0xFE


@dataclass(frozen=True, kw_only=True)
class Header:
    """What an image file says about itself before its pixels are decoded."""

    format: str
    width: int
    height: int
    upright: bool = True  # False: it states a rotation (EXIF), which is not applied
    plain: bool  # 8-bit RGB or gray, upright, JPEG or PNG: every reader gives the same pixels of a sound file
    largest: int = 255  # the value that is white in such a file
    inverted: bool = False  # 0 is white
    planes: bool = False  # channels one after another


def plain_jpeg(data: bytes) -> Header | None:
    """The header of a gray or colour JPEG whose segments, up to its pixels, have their usual form; None for whatever
    else, which PIL is to judge: EXIF (an orientation), several images, other colours, damage.
    """
    if data[:2] != b"\xff\xd8":
        return None
    found, at = None, 2
    while data[at : at + 1] == b"\xff" and at + 4 <= len(data):
        kind, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2 or at + 2 + length > len(data):
            return None
        if kind == _SCAN:
            return found
        if kind in _FRAMES:
            height, width = int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
            usual = length in (11, 17) and data[at + 4] == 8 and data[at + 9] == (length - 8) // 3
            if found or not usual or not 0 < height * width <= MAX_PIXELS:
                return None
            found = Header(format="JPEG", width=width, height=height, plain=True)
        elif kind == _QUANTISATION:
            if length < 67 or (length - 2) % 65 or any(data[table] > 3 for table in range(at + 4, at + 2 + length, 65)):
                return None
        elif kind == _JFIF:
            if length != 16 or data[at + 4 : at + 9] != b"JFIF\0":
                return None
        elif kind == _PROFILE:  # of colours, which nobody applies; the place of a list of images, too
            if length < 20 or data[at + 4 : at + 16] != b"ICC_PROFILE\0":
                return None
        elif kind == _ADOBE:
            if length != 14 or data[at + 4 : at + 9] != b"Adobe":
                return None
        elif kind not in (*_TABLES, _COMMENT):
            return None
        at += 2 + length
    return None
