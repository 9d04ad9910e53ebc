"""Map PNGs: exact round trip, readable by others, fixed bytes, refusal of what they are not."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.image.png import _as_written_here, decode_gray8, encode_gray8


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (7, 1), (128, 170)])
def test_round_trip_here_and_in_other_readers(shape: tuple[int, int]) -> None:
    gray = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    data = encode_gray8(gray)
    assert np.array_equal(decode_gray8(data), gray)
    picture = Image.open(io.BytesIO(data))
    assert picture.mode == "L" and np.array_equal(np.asarray(picture), gray)
    # Readers that turn every picture into RGB keep the ids.
    assert np.array_equal(np.asarray(picture.convert("RGB"))[..., 1], gray)


def test_bytes_are_fixed_and_strided_views_are_fine() -> None:
    gray = np.arange(12, dtype=np.uint8).reshape(3, 4)
    data = encode_gray8(gray)
    assert data.hex().startswith("89504e470d0a1a0a0000000d4948445200000004000000030800000000")
    assert encode_gray8(np.repeat(gray, 2, axis=1)[:, ::2]) == data


def test_smaller_than_the_default_png_on_maps() -> None:
    blocks = np.kron(np.arange(240).reshape(12, 20), np.ones((10, 9))).astype(np.uint8)
    assert len(encode_gray8(blocks)) < len(cv2.imencode(".png", blocks)[1])


def test_refusals_name_what_was_seen() -> None:
    with pytest.raises(ValueError, match="int64"):
        encode_gray8(np.zeros((2, 2), np.int64))
    with pytest.raises(ValueError, match=r"\(0, 4\)"):
        encode_gray8(np.zeros((0, 4), np.uint8))
    with pytest.raises(ValueError, match="not a readable PNG"):
        decode_gray8(b"")
    with pytest.raises(ValueError, match="not a readable PNG"):
        decode_gray8(encode_gray8(np.zeros((4, 4), np.uint8))[:30])
    for wrong in (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint16)):
        with pytest.raises(ValueError, match="8-bit grayscale"):
            decode_gray8(cv2.imencode(".png", wrong)[1].tobytes())


def test_the_short_way_takes_what_is_undamaged_and_nothing_else() -> None:
    """Any bit of a map that flips gives an error or what OpenCV makes of it: never other ids without a word."""
    gray = np.random.default_rng(0).integers(0, 5, (9, 14), np.uint8)
    data = encode_gray8(gray)
    assert _as_written_here(data) is not None
    for at in range(len(data)):
        torn = bytearray(data)
        torn[at] ^= 4
        assert _as_written_here(bytes(torn)) is None
        assert _as_written_here(data[:at]) is None
    filtered = cv2.imencode(".png", np.arange(256, dtype=np.uint8).reshape(16, 16))[1].tobytes()
    assert _as_written_here(filtered) is None
    assert np.array_equal(decode_gray8(filtered), np.arange(256).reshape(16, 16))
