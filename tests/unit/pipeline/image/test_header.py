"""The quick look at a JPEG's header says what PIL says, or leaves it to PIL: for whole, cut and changed files."""

import io
import warnings
from collections import Counter

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.image import image
from pipeline.image.header import Header, plain_jpeg

PIXELS = (np.add.outer(np.arange(20), np.arange(30))[..., None] * np.array([1, 3, 5])).astype(np.uint8)


def _saved(mode: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


_EXIF = Image.Exif()
_EXIF[0x0112] = 6
WHOLE = {
    "rgb": _saved("RGB"),
    "gray": _saved("L"),
    "progressive, restarts, comment": _saved("RGB", progressive=True, restart_marker_rows=1, comment=b"made by hand"),
    "opencv": cv2.imencode(".jpg", PIXELS)[1].tobytes(),
    "a profile": _saved("RGB", icc_profile=b"x" * 200),
    "kept as rgb": _saved("RGB", keep_rgb=True),  # an Adobe segment
}
LEFT = {"exif": _saved("RGB", exif=_EXIF), "cmyk": _saved("CMYK")}


def _by_pil(data: bytes, monkeypatch: pytest.MonkeyPatch) -> Header | None:
    with monkeypatch.context() as patched:
        patched.setattr(image, "plain_jpeg", lambda data: None)
        try:
            return image.read_header(data)
        except image.BadImage:
            return None


@pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE)
def test_a_plain_jpeg_is_known_without_pil(data, monkeypatch):
    assert plain_jpeg(data) == _by_pil(data, monkeypatch) == Header(format="JPEG", width=30, height=20, plain=True)


@pytest.mark.parametrize("data", LEFT.values(), ids=LEFT)
def test_what_needs_more_is_left_to_pil(data, monkeypatch):
    assert plain_jpeg(data) is None and image.read_header(data) == _by_pil(data, monkeypatch) is not None


@pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE)
def test_cut_and_changed_headers_are_never_seen_otherwise_than_by_pil(data, monkeypatch):
    start = data.index(b"\xff\xda") + 12
    damaged = [data[:length] for length in range(0, start, 7)]
    random = np.random.default_rng(0)
    for at in random.integers(0, start, 150).tolist():
        damaged += [data[:at] + bytes([value]) + data[at + 1 :] for value in (0, 255, *random.integers(1, 255, 2))]
        damaged += [data[:at] + data[at + 1 :]]
    told = Counter()
    with warnings.catch_warnings(action="ignore"):
        for one in damaged:
            found = plain_jpeg(one)
            told[found is not None] += 1
            assert found is None or found == _by_pil(one, monkeypatch)
    assert min(told[True], told[False]) > 50  # most changes lie in tables, whose values no header tells
