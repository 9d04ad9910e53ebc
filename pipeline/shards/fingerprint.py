"""What shapes the bytes of a shard besides config and plan: library versions, and a proof on this very machine."""

import hashlib
import json
import platform
import zlib
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from pipeline.image.image import ImageConfig, prepare_image
from pipeline.io.machine import version_of
from pipeline.superpixels.segment import SuperpixelConfig, segment_image

from .sample import FORMAT_VERSION, Sample, encode

_LIBRARIES = ("fast-slic", "opencv-python-headless", "numba", "webdataset")


def digest(value: Any) -> str:
    """sha256 of the canonical JSON of a value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def byte_versions() -> dict[str, str]:
    """Versions of what turns pixels into stored bytes, and the digest of a golden image prepared here."""
    found = {"format": str(FORMAT_VERSION), "zlib": zlib.ZLIB_RUNTIME_VERSION, "golden": golden_digest()}
    return found | {name: version_of(name) or "unknown" for name in _LIBRARIES}


@lru_cache(maxsize=1)
def golden_digest() -> str:
    """sha256 of the members that this process makes of one generated photo-like image (about 50 ms).

    Two machines with the same digest make the same shards: it passes through decoding, resizing, JPEG and PNG
    encoding, segmentation and merging.
    """
    y, x = np.mgrid[0:300, 0:400]
    waves = np.stack([(x * x + y * (3 + c)) // (40 + 9 * c) % 256 for c in range(3)], -1).astype(np.uint8)
    waves[60:180, 90:260] = 255 - waves[60:180, 90:260] // 2
    smooth = cv2.blur(waves, (9, 9))
    original = cv2.imencode(".jpg", smooth, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
    stored, ext, rgb = prepare_image(original, ImageConfig())
    superpixels = segment_image(rgb, SuperpixelConfig())
    sample = Sample(key="golden", image=stored, image_ext=ext, superpixels=superpixels, class_id=0, meta={})
    return hashlib.sha256(b"".join(encode(sample).values())).hexdigest()


def machine() -> str:
    """Name of this machine, for messages that must name it."""
    return f"{platform.node()} ({platform.machine()})"
