"""Values of 9 to 16 bits come out over the whole range of 8 bits, or are refused with what they are."""

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.image.image import BadImage, ImageConfig, decode_image, prepare_image

RAMP = np.linspace(0, 1, 20 * 30).reshape(20, 30)


def _deep(ending: str, bits: int, channels: int = 1) -> bytes:
    """A ramp from 0 to the largest value of `bits`, in a file of 16 bits."""
    gray = (RAMP * (2**bits - 1)).round().astype(np.uint16)
    return cv2.imencode(ending, gray if channels == 1 else np.repeat(gray[..., None], channels, 2))[1].tobytes()


def _tiff(pixels: np.ndarray, kind: int, photometric: int = 1) -> bytes:
    """One uncompressed strip of gray `pixels`; `kind` is TIFF's sample format."""
    height, width = pixels.shape
    tags = {256: width, 257: height, 258: pixels.itemsize * 8, 259: 1, 262: photometric, 273: 8 + 2 + 10 * 12 + 4}
    tags |= {277: 1, 278: height, 279: pixels.nbytes, 339: kind}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + pixels.tobytes()


@pytest.mark.parametrize("ending", [".png", ".tiff", ".pgm"])
@pytest.mark.parametrize(("bits", "channels"), [(12, 1), (10, 1), (14, 1), (12, 3)])
def test_stated_bits_fill_the_range(ending: str, bits: int, channels: int) -> None:
    data = _deep(".ppm" if ending == ".pgm" and channels == 3 else ending, bits, channels)
    stored, ext, rgb = prepare_image(data, ImageConfig(depth=bits))
    assert ext == "png" and np.abs(rgb[..., 0] - RAMP * 255).max() <= 0.75
    assert np.array_equal(decode_image(stored), rgb) and (rgb[..., 0] == rgb[..., 2]).all()


@pytest.mark.parametrize("ending", [".png", ".tiff", ".pgm"])
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_without_their_bits_nothing_comes_out_in_16_gray_levels(ending: str, bits: int) -> None:
    with pytest.raises(BadImage, match=r"at most 14 bits.*--image\.depth 12"):
        prepare_image(_deep(ending, bits), ImageConfig())
    assert prepare_image(_deep(ending, bits), ImageConfig(depth=16))[2].max() == 2**bits - 1 >> 8, "asked for"


def test_full_16_bits_and_files_of_8_bits_stay_as_they_are() -> None:
    whole, eight = _deep(".png", 16), cv2.imencode(".png", (RAMP * 255).astype(np.uint8))[1].tobytes()
    assert np.abs(prepare_image(whole, ImageConfig())[2][..., 0] - RAMP * 255).max() <= 1
    for depth in (None, 9, 12, 16):
        assert prepare_image(eight, ImageConfig(depth=depth))[0] is eight


def test_white_at_zero_is_turned_and_values_beyond_the_bits_are_named() -> None:
    values = (RAMP * 4095).round().astype("<u2")
    turned = _tiff(values, 1, photometric=0)
    assert np.abs(prepare_image(turned, ImageConfig(depth=12))[2][..., 0] - (1 - RAMP) * 255).max() <= 0.75
    with pytest.raises(BadImage, match="at most 14 bits"):
        prepare_image(turned, ImageConfig())
    with pytest.raises(BadImage, match="holds the value 4095, more than 1023, the largest value of 10 bits"):
        prepare_image(_tiff(values, 1), ImageConfig(depth=10))


@pytest.mark.parametrize(
    ("kind", "sample_format", "words"),
    [
        ("<f4", 3, "32-bit floating-point"),
        ("<u4", 1, "32-bit unsigned"),
        ("<i4", 2, "32-bit signed"),
        ("<i2", 2, "16-bit signed"),
        ("<f8", 3, "64-bit floating-point"),
    ],
)
def test_other_numbers_are_named_not_called_damaged(kind: str, sample_format: int, words: str) -> None:
    with pytest.raises(BadImage, match=f"is a TIFF of {words} numbers: write it with 8 or 16 bits"):
        prepare_image(_tiff((RAMP * 4095).astype(kind), sample_format), ImageConfig())


def test_a_depth_that_nobody_set_leaves_a_data_set_as_it_was() -> None:
    assert ImageConfig().settings() == {"target_px": 256, "quality": 92}
    assert ImageConfig(depth=12).settings()["depth"] == 12


def test_a_file_like_a_tiff_is_no_tiff() -> None:
    for data in (b"II*\0", b"II*\0" + b"\xff" * 60, b"MM\0*" + bytes(40)):
        with pytest.raises(BadImage, match="is not an image"):
            prepare_image(data, ImageConfig())
    assert Image.open(io.BytesIO(_tiff((RAMP * 4095).astype("<u2"), 1))).size == (30, 20), "the writer here is sound"
