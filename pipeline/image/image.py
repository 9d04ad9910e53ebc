"""Encoded images in, encoded images of bounded size out. What cannot be decoded is a `BadImage` with a reason."""

import io
import warnings

import cv2
import numpy as np
from PIL import Image

from . import depth
from .config import ImageConfig
from .header import MAX_PIXELS, Header, plain_jpeg
from .resize import reduce_area

MAX_SIDE_PX = 65_500  # what a JPEG file can hold
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM")  # recognised by content; the file's name says nothing
_LOSSY = ("JPEG", "MPO", "WEBP")
_ORIENTATION = 0x0112
# Orientation is left as stored: published ImageNet numbers ignore the EXIF tag. 16-bit images become 8-bit.
_FLAGS = cv2.IMREAD_COLOR_BGR | cv2.IMREAD_IGNORE_ORIENTATION
_RGB_FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_DEEP_FLAGS = _FLAGS | cv2.IMREAD_ANYDEPTH


class BadImage(Exception):  # noqa: N818 - it names a thing found in the data, like StopIteration
    """These bytes are no usable image; the text says why. It is the sample's fault, not the program's."""


def read_header(data: bytes) -> Header:
    """Cheap look at the first bytes, so that a small file cannot ask for gigabytes. Raises BadImage."""
    if not data:
        raise BadImage("is empty (0 bytes)")
    if (usual := plain_jpeg(data)) is not None:
        return usual
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            upright = image.getexif().get(_ORIENTATION, 1) in (0, 1) if "exif" in image.info else True
            eight_bit = image.format != "PNG" or data[24] == 8
            plain = upright and eight_bit and image.format in ("JPEG", "PNG") and image.mode in ("RGB", "L")
            if reason := depth.unsuited(getattr(image, "tag_v2", None)):
                raise BadImage(reason)
            header = Header(
                format=image.format or "",
                width=image.width,
                height=image.height,
                upright=upright,
                plain=plain,
                largest=depth.largest_value(image, data),
                inverted=depth.white_is_zero(image),
                planes=depth.has_planes(image),
            )
    except (MemoryError, BadImage):
        raise  # want of memory is of this moment, not of this image
    except Image.DecompressionBombError:
        raise BadImage(f"states more than {MAX_PIXELS} pixels") from None
    except Exception as error:  # PIL's readers raise many kinds on damaged headers: all of them mean the same here
        raise BadImage(depth.unsuited_tiff(data) or f"is not an image: {_first_line(error, data)}") from None
    if not header.largest:
        raise BadImage("is a PFM file, which does not say what is white: it would come out dark")
    if header.width * header.height > MAX_PIXELS:
        raise BadImage(f"states {header.width}x{header.height} pixels, more than {MAX_PIXELS}")
    return header


def decode_image(data: bytes) -> np.ndarray:
    """uint8 RGB (H, W, 3), as stored (EXIF orientation is not applied). Raises BadImage."""
    return _decode(data, read_header(data))


def decode_stored(data: bytes) -> np.ndarray:
    """As `decode_image`, for bytes that a shard holds: their header was looked at when the shard was built."""
    return _decode(data, None)


def prepare_image(data: bytes, config: ImageConfig, header: Header | None = None) -> tuple[bytes, str, np.ndarray]:
    """(bytes to store, "jpg" or "png", their decoded uint8 RGB (h, w, 3)). Raises BadImage.

    The original bytes are kept when the short side is not longer than `target_px` and any reader would see the same
    pixels. The pixels are those of the stored bytes, so that a map can be made again from a shard alone.
    """
    header = header or read_header(data)
    bgr = _decode(data, header, config.depth, bgr=True)  # as OpenCV encodes it
    short = min(header.width, header.height)
    ext = "jpg" if header.format in _LOSSY else "png"
    if header.plain and short <= config.target_px:
        rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        if _others_agree(data, rgb):
            return data, ext, rgb
    if short > config.target_px:
        scale = config.target_px / short
        bgr = reduce_area(bgr, max(1, round(header.height * scale)), max(1, round(header.width * scale)))
    if max(bgr.shape) > MAX_SIDE_PX:
        raise BadImage(f"has a side of {max(bgr.shape)} pixels at the stored size, more than {MAX_SIDE_PX}")
    options = [cv2.IMWRITE_JPEG_QUALITY, config.quality] if ext == "jpg" else []
    done, stored = cv2.imencode(f".{ext}", bgr, options)
    if not done:
        raise BadImage(f"cannot be encoded again ({bgr.shape[1]}x{bgr.shape[0]} pixels)")
    encoded = stored.tobytes()
    return encoded, ext, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB) if ext == "png" else _decode(encoded, None)


def _others_agree(data: bytes, rgb: np.ndarray) -> bool:
    """Whether PIL, which most readers of shards decode with, sees these pixels too. It refuses some broken segments and
    checksums that OpenCV passes over. Costs 0.4 ms at 256 px, 0.06 ms at 32 px.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as image:
            return np.array_equal(np.asarray(image.convert("RGB")), rgb)
    except MemoryError:
        raise
    except Exception:  # PIL's readers raise many kinds
        return False


def prepare_label_map(data: bytes, original: tuple[int, int], stored: tuple[int, ...]) -> np.ndarray:
    """uint8 (h, w): a ground-truth label map, scaled by nearest pixel from the image's `original` (H, W) to its
    `stored` (h, w, ...). Palette files give their indices. Raises BadImage.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "GIF", "BMP", "TIFF")) as image:
            labels, mode = np.asarray(image), image.mode
    except MemoryError:
        raise  # of this moment, not of this image
    except Exception as error:
        raise BadImage(f"has a label map that cannot be decoded: {_first_line(error, data)}") from None
    if mode not in ("L", "P", "1") or labels.ndim != 2:
        raise BadImage(f"has a label map of kind {mode}; 8-bit gray or palette is needed, one label in each pixel")
    if labels.shape != original:
        raise BadImage(
            f"has a label map of {labels.shape[1]}x{labels.shape[0]} pixels and is {original[1]}x{original[0]} itself"
        )
    size = (stored[1], stored[0])
    return cv2.resize(labels.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT)


def _decode(data: bytes, header: Header | None, bits: int | None = None, bgr: bool = False) -> np.ndarray:
    # libjpeg gives RGB as cheaply as BGR, the same values; others are turned at the end
    as_rgb = data[:2] == b"\xff\xd8" and not bgr
    largest = _largest(header, bits) if header else 255
    flags = _DEEP_FLAGS if largest not in (255, 65535) else _RGB_FLAGS if as_rgb else _FLAGS
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError(f"no memory for the pixels of an image ({len(data)} bytes encoded)") from None
        raise BadImage(f"cannot be decoded: {_first_line(error, data)}") from None
    if pixels is None:
        raise BadImage(f"cannot be decoded: its {len(data)} bytes are damaged or cut short")
    if header and pixels.shape[:2] != (header.height, header.width):
        found = f"{pixels.shape[1]}x{pixels.shape[0]}"
        raise BadImage(f"decodes to {found} pixels, but states {header.width}x{header.height}")
    if header and flags == _DEEP_FLAGS:
        try:
            pixels = depth.to_8_bits(pixels, largest, header.inverted)
        except ValueError as error:
            raise BadImage(f"{error}, the largest value of {f'{bits} bits' if bits else 'its header'}") from None
    elif largest == 65535 and bits is None and header and depth.is_dark(pixels, header.inverted):
        raise BadImage(
            "holds 16-bit values of at most 14 bits, so it would come out nearly black. State their bits, such as "
            "--image.depth 12, or 16 to take it as it is"
        )
    return pixels if bgr or as_rgb else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _largest(header: Header, bits: int | None) -> int:
    """The value that becomes 255; 255 and 65535 are scaled by OpenCV. Raises BadImage."""
    if header.largest != 65535 or bits in (None, 16):
        return header.largest
    if header.planes:
        raise BadImage(f"is a TIFF with its channels one after another, which cannot be read at --image.depth {bits}")
    return 2 ** int(bits or 16) - 1


def _first_line(error: Exception, data: bytes) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return f"its {len(data)} bytes start with {data[:8]!r}"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
