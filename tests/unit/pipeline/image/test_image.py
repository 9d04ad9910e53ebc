"""The odd files of real collections come out right; what is no image is refused with a reason."""

import io
import random
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.image.image import BadImage, ImageConfig, decode_image, prepare_image, prepare_label_map, read_header
from testkit.image_sources import jpeg, photo, png

SMALL, LARGE = photo(0, 40, 56), photo(1, 400, 600)


def _saved(image: np.ndarray, format: str, mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).convert(mode).save(buffer, format, **options)
    return buffer.getvalue()


def _exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


@pytest.mark.parametrize("data", [_saved(SMALL, "JPEG"), _saved(SMALL, "JPEG", "L"), png(0), _saved(SMALL, "PNG", "L")])
def test_small_plain_images_keep_their_bytes(data: bytes) -> None:
    stored, ext, rgb = prepare_image(data, ImageConfig())
    assert stored is data and ext == ("png" if data[1:4] == b"PNG" else "jpg")
    assert rgb.shape == SMALL.shape and rgb.dtype == np.uint8
    assert np.array_equal(rgb, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_large_images_are_reduced_to_the_short_side(format: str) -> None:
    stored, ext, rgb = prepare_image(_saved(LARGE, format), ImageConfig(target_px=128))
    assert rgb.shape == (128, 192, 3) and ext == ("png" if format == "PNG" else "jpg")
    assert np.array_equal(rgb, decode_image(stored)), "the pixels are those of the stored bytes"
    expected = cv2.resize(LARGE, (192, 128), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(rgb - expected).mean() < 4


def test_exif_rotation_is_ignored_and_cannot_mislead_a_reader() -> None:
    data = _saved(SMALL, "JPEG", exif=_exif(6), quality=95)
    stored, _, rgb = prepare_image(data, ImageConfig())
    assert rgb.shape == SMALL.shape
    assert cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_COLOR).shape == SMALL.shape
    assert np.abs(rgb.astype(int) - decode_image(data)).mean() < 4
    kept = _saved(SMALL, "JPEG", exif=_exif(1))
    assert prepare_image(kept, ImageConfig())[0] is kept


@pytest.mark.parametrize(
    ("data", "tolerance", "ext"),
    [
        (_saved(SMALL, "JPEG", "CMYK", quality=95), 6, "jpg"),  # 22 of ImageNet's photos
        (_saved(SMALL, "GIF", "P"), 16, "png"),
        (_saved(SMALL, "PNG", "P"), 16, "png"),
        (_saved(SMALL, "PNG", "RGBA"), 0, "png"),
        (_saved(SMALL, "BMP"), 0, "png"),
        (_saved(SMALL, "TIFF"), 0, "png"),
        (_saved(SMALL, "WEBP", quality=95), 6, "jpg"),
        (_saved(SMALL, "JPEG", progressive=True, quality=95), 4, "jpg"),
        (_saved(SMALL, "JPEG", quality=95) + b"trailing garbage", 4, "jpg"),
        (cv2.imencode(".png", SMALL[..., ::-1].astype(np.uint16) * 257)[1].tobytes(), 1, "png"),
    ],
    ids=["cmyk", "gif", "palette", "alpha", "bmp", "tiff", "webp", "progressive", "trailing", "png16"],
)
def test_odd_files_come_out_right(data: bytes, tolerance: float, ext: str) -> None:
    stored, kind, rgb = prepare_image(data, ImageConfig())
    assert kind == ext and rgb.shape == SMALL.shape
    assert np.abs(rgb.astype(int) - SMALL).mean() <= tolerance
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(stored)).convert("RGB")), rgb)


def _broken_crc(data: bytes, kind: bytes) -> bytes:
    """The PNG with a wrong checksum of its first chunk of this kind."""
    start = data.find(kind)
    end = start + 4 + int.from_bytes(data[start - 4 : start], "big")
    return data[:end] + bytes([data[end] ^ 1]) + data[end + 1 :]


BROKEN = {
    "an unknown marker at the end": jpeg(0)[:-1] + b"\x22",
    "no end marker": jpeg(0)[:-2],
    "a segment cut at the end": jpeg(0)[:-2] + b"\xff\xe1\xff\xff",
    "a marker among the pixels": jpeg(0)[:1129] + b"\xcc" + jpeg(0)[1130:],
    "a comment of length 0": jpeg(0)[:2] + b"\xff\xfe\0\0" + jpeg(0)[2:],
    "broken EXIF": jpeg(0)[:2] + b"\xff\xe1\0\x10Exif\0\0MM\0*\xff\xff\xff\xff" + jpeg(0)[2:],
    "a second image behind": jpeg(0) + jpeg(1),
    "half of the pixels zero": jpeg(0)[:900] + bytes(len(jpeg(0)) - 900),
    "wrong checksum of pixels": _broken_crc(png(0), b"IDAT"),
    "wrong checksum of the end": _broken_crc(png(0), b"IEND"),
    "png cut before its end": png(0)[:-12],
    "png with bytes behind": png(0) + b"trailing",
    "gif cut": _saved(SMALL, "GIF", "P")[:-9],
    "webp with bytes behind": _saved(SMALL, "WEBP") + b"trailing",
    "bmp cut": _saved(SMALL, "BMP")[:-9],
    "tiff cut": _saved(SMALL, "TIFF")[:-40],
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_broken_files_are_refused_or_every_reader_sees_the_same(data: bytes) -> None:
    """PIL stands for the readers of shards; what it refuses or sees otherwise must not be stored as it came."""
    try:
        stored, _, rgb = prepare_image(data, ImageConfig())
    except BadImage:
        return
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(stored)).convert("RGB")), rgb)


def test_a_jpeg_that_only_opencv_takes_is_encoded_again() -> None:
    data = BROKEN["an unknown marker at the end"]
    with pytest.raises(OSError, match="broken data stream"):
        Image.open(io.BytesIO(data)).load()
    stored, ext, rgb = prepare_image(data, ImageConfig(quality=95))
    assert ext == "jpg" and stored != data and np.abs(rgb.astype(int) - decode_image(jpeg(0))).mean() < 4


def _png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body)) + png(0)[33:]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<html>404</html>", "is not an image: its 16 bytes start with b'<html>40'"),
        (b"%PDF-1.4" * 100, "is not an image"),
        (jpeg(0)[: len(jpeg(0)) // 2], "damaged or cut short"),
        (png(0)[:100], "damaged or cut short"),
        (_png_header(60_000, 60_000), "pixels"),
        (_png_header(12_000, 7_450), "states 12000x7450 pixels"),
        (_png_header(100, 5), "damaged|decodes to"),
        (b"\xff\xd8\xff\xe0", "is not an image"),
    ],
)
def test_what_is_no_image_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(BadImage, match=reason):
        prepare_image(data, ImageConfig())


def test_thin_images_pass_and_impossible_ones_are_refused() -> None:
    assert prepare_image(png(0, 1, 1), ImageConfig())[2].shape == (1, 1, 3)
    assert prepare_image(png(0, 2, 3000), ImageConfig())[2].shape == (2, 3000, 3)
    with pytest.raises(BadImage, match="side of 66667"):
        prepare_image(png(0, 12, 100_000), ImageConfig(target_px=8))


def test_mutated_images_never_crash() -> None:
    rng = random.Random(0)
    originals = [jpeg(0), png(0), _saved(SMALL, "GIF", "P"), _saved(SMALL, "WEBP"), _saved(SMALL, "JPEG", "CMYK")]
    refused = 0
    for number in range(300):
        data = bytearray(rng.choice(originals))
        for _ in range(rng.choice([1, 3, 30])):
            data[rng.randrange(min(len(data), rng.choice([40, 10**6])))] = rng.randrange(256)
        if number % 3 == 0:
            del data[rng.randrange(len(data)) :]
        try:
            assert prepare_image(bytes(data), ImageConfig())[2].size
        except BadImage as error:
            refused += 1
            assert str(error)
    assert 50 < refused < 300


def test_want_of_memory_is_not_the_images_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        error = cv2.error("Failed to allocate 999 bytes")
        error.code = cv2.Error.StsNoMem
        raise error

    monkeypatch.setattr(cv2, "imdecode", fails)
    with pytest.raises(MemoryError, match="no memory for the pixels"):
        decode_image(jpeg(0))
    monkeypatch.setattr(Image, "open", lambda *_, **__: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(MemoryError):
        read_header(png(0))
    with pytest.raises(MemoryError):
        prepare_label_map(png(0), (40, 56), (40, 56, 3))


@pytest.mark.parametrize(
    ("header", "kind", "top"),
    [
        ("P5 # x\n20 20\n1023\n", ">u2", 1023),
        ("P5\n20 20 15\n", "u1", 15),
        ("P5 # x\n20 20\n65535\n", ">u2", 65535),
        ("P5 20 20\n255\n", "u1", 255),
    ],
)
def test_portable_maps_are_scaled_by_the_value_that_they_state(header: str, kind: str, top: int) -> None:
    ramp = np.linspace(0, 1, 400)
    data = header.encode() + (ramp * top).round().astype(kind).tobytes()
    assert np.abs(prepare_image(data, ImageConfig())[2][..., 0].ravel() - ramp * 255).max() <= max(1, 128 / top)
    with pytest.raises(BadImage, match="would come out dark"):
        prepare_image(b"Pf\n20 20\n-1.0\n" + ramp.astype("<f4").tobytes(), ImageConfig())


def test_header_and_config_checks() -> None:
    header = read_header(jpeg(0, 30, 50))
    assert (header.format, header.width, header.height, header.plain) == ("JPEG", 50, 30, True)
    for wrong in ({"target_px": 0}, {"quality": 101}, {"depth": 8}, {"depth": 17}):
        with pytest.raises(ValueError, match="choose"):
            ImageConfig(**wrong)
