"""Superpixel maps as PNG files: 8-bit grayscale, no row filter, zlib level 5.

Ids are symbols, not intensities, so row filters (differences of ids) only cost bytes: over 100 ImageNet photos this
form is about 30 % smaller than OpenCV's default PNG. Every PNG reader opens it; the writer is the standard library's
zlib, so the bytes do not move with a release of OpenCV or libpng.
"""

import struct
import zlib

import cv2
import numpy as np

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_START = 57  # bytes of a PNG with empty pixels: signature, IHDR, IDAT and IEND
_LEVEL = 5  # on 60 maps: 4206 bytes in 0.26 ms; level 4: 4234 in 0.17, level 6: 4224 in 0.37, level 9: 4228 in 0.45


def encode_gray8(gray: np.ndarray) -> bytes:
    """A PNG of `gray`, uint8 (h, w) with h, w >= 1. Raises ValueError for anything else."""
    if gray.ndim != 2 or gray.dtype != np.uint8 or gray.size == 0:
        raise ValueError(f"a gray PNG needs uint8 (h, w) with at least one pixel, got {gray.dtype} {gray.shape}")
    height, width = gray.shape
    rows = np.zeros((height, width + 1), np.uint8)  # the first byte of each row is its filter type: 0, none
    rows[:, 1:] = gray
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)  # depth 8, gray, deflate, no interlace
    pixels = zlib.compress(rows.data, _LEVEL)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def decode_gray8(data: bytes) -> np.ndarray:
    """uint8 (h, w) from any 8-bit grayscale PNG. Raises ValueError when `data` is not one (damaged, colour, 16-bit)."""
    ours = _as_written_here(data)
    if ours is not None:
        return ours
    buffer = np.frombuffer(data, np.uint8)
    gray = cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED) if data[:8] == _SIGNATURE else None
    if gray is None:
        raise ValueError(f"not a readable PNG ({len(data)} bytes, starting with {bytes(data[:8])!r})")
    if gray.ndim != 2 or gray.dtype != np.uint8:
        raise ValueError(f"expected an 8-bit grayscale PNG, got {gray.dtype} {gray.shape}")
    return gray


def _as_written_here(data: bytes) -> np.ndarray | None:
    """The pixels of an undamaged PNG of `encode_gray8`, in two thirds of OpenCV's time; None for any other bytes."""
    if len(data) < _START or data[:16] != _SIGNATURE + b"\0\0\0\rIHDR" or data[24:29] != b"\x08\0\0\0\0":
        return None
    width, height, length = *struct.unpack(">II", data[16:24]), int.from_bytes(data[33:37], "big")
    body = memoryview(data)[37 : 41 + length]  # its kind and its pixels
    if data[29:33] != zlib.crc32(data[12:29]).to_bytes(4, "big") or body[:4] != b"IDAT":
        return None
    if data[41 + length :] != zlib.crc32(body).to_bytes(4, "big") + _chunk(b"IEND", b""):
        return None
    try:
        unpacked = zlib.decompressobj().decompress(body[4:], height * (width + 1) + 1)
    except zlib.error:
        return None
    if len(unpacked) != height * (width + 1) or not unpacked:
        return None
    rows = np.frombuffer(unpacked, np.uint8).reshape(height, width + 1)
    return None if rows[:, 0].any() else np.ascontiguousarray(rows[:, 1:])


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
