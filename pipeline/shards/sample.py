"""One sample as the members of a shard, and back. The names of the members are the format; FORMAT.md specifies them."""

import io
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from pipeline.errors import DataError
from pipeline.image.png import decode_gray8, encode_gray8
from pipeline.superpixels.merge_order import joins_all
from pipeline.superpixels.segment import Superpixels

_NPY_START = 128  # bytes of the header of a merge order

FORMAT_VERSION = 1  # raised when a reader of the old format would misread the new one

IMAGE_EXTENSIONS = ("jpg", "png")
_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"))  # kept: json.dumps makes one for each call


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An image with its superpixels. `superpixels.map` has its own size and the image's aspect, up to rounding."""

    key: str
    image: bytes  # an encoded file, kind `image_ext`
    image_ext: str
    superpixels: Superpixels
    class_id: int | None  # index in the data set's class list
    meta: dict[str, Any]  # JSON values only
    label_map: np.ndarray | None = None  # uint8 (h, w): ground truth of dense tasks


def content_id(sha256: str) -> int:
    """The first 60 bits of a sha256: 50,000 images meet one of a million by chance once in 10 million data sets."""
    return int(sha256[:15], 16)


def encode(sample: Sample) -> dict[str, bytes]:
    """Members by suffix, sorted. The same sample gives the same bytes. Raises ValueError for an unknown image kind."""
    if sample.image_ext not in IMAGE_EXTENSIONS:
        raise ValueError(f"sample {sample.key}: image_ext is '{sample.image_ext}', not one of {IMAGE_EXTENSIONS}")
    merges = np.ascontiguousarray(sample.superpixels.merges, np.uint8)
    members = {
        sample.image_ext: sample.image,
        "json": _JSON.encode(sample.meta).encode(),
        "spx.png": encode_gray8(sample.superpixels.map),
        "merges.npy": _npy_header(len(merges)) + merges.tobytes(),
    }
    if sample.class_id is not None:
        members["cls"] = str(int(sample.class_id)).encode()
    if sample.label_map is not None:
        members["seg.png"] = encode_gray8(sample.label_map)
    return dict(sorted(members.items()))


@lru_cache(maxsize=256)
def _npy_header(num_rows: int) -> bytes:
    """Start of an .npy file, version 1, of uint8 (num_rows, 2). Kept, because numpy takes 0.1 ms to write it."""
    start = io.BytesIO()
    np.lib.format.write_array(start, np.empty((num_rows, 2), np.uint8), version=(1, 0))
    return start.getvalue()[: len(start.getvalue()) - 2 * num_rows]


def _merges(data: bytes) -> np.ndarray:
    """What `encode` wrote without parsing its header (a tenth of the time); any other .npy through numpy."""
    num_rows = max(0, len(data) - _NPY_START) // 2
    if num_rows and data.startswith(_npy_header(num_rows)) and len(data) == _NPY_START + 2 * num_rows:
        return np.frombuffer(data, np.uint8, offset=_NPY_START).reshape(num_rows, 2).copy()
    return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)


def check_merges(merges: np.ndarray) -> None:
    """Raise ValueError unless each step joins two regions that are left, a < b, so that n-1 steps leave region 0 alone.

    That is: every region but 0 goes once, and none of those that keep their id has gone before.
    """
    if merges.ndim != 2 or merges.shape[1] != 2 or merges.dtype != np.uint8 or len(merges) > 255:
        raise ValueError(f"it is {merges.dtype} {merges.shape}, not uint8 (n-1, 2)")
    if not joins_all(merges):
        raise ValueError("it does not join all regions")


def decode(key: str, members: dict[str, bytes]) -> Sample:
    """The sample that `encode` took apart. Raises DataError that names the key and the member that is wrong."""
    try:
        return sample_of(key, members)
    except ValueError as error:
        raise DataError(
            f"sample {key}: {error}. `focusvit verify` finds the damaged shard, `--repair` rebuilds it."
        ) from None


def sample_of(key: str, members: dict[str, bytes]) -> Sample:
    """As `decode`. Raises ValueError that names the member alone."""
    image_ext = next((name for name in IMAGE_EXTENSIONS if name in members), None)
    missing = [name for name in ("json", "spx.png", "merges.npy") if name not in members]
    if image_ext is None or missing:
        raise ValueError(f"it has the members {sorted(members)}: it lacks {missing or 'its image (jpg or png)'}")
    name = "json"
    try:
        meta = json.loads(members[name])
        name = "merges.npy"
        merges = _merges(members[name])
        check_merges(merges)
        name = "spx.png"
        superpixels = Superpixels(decode_gray8(members[name]), merges)
        if int(superpixels.map.max()) > len(merges):
            raise ValueError(f"it holds the id {superpixels.map.max()}, but there are {len(merges) + 1} regions")
        name = "seg.png"
        label_map = decode_gray8(members[name]) if name in members else None
        name = "cls"
        class_id = int(members[name]) if name in members else None
    except (ValueError, EOFError) as error:
        raise ValueError(f"its member {name} cannot be read ({error})") from None
    return Sample(
        key=key,
        image=members[image_ext],
        image_ext=image_ext,
        superpixels=superpixels,
        class_id=class_id,
        meta=meta,
        label_map=label_map,
    )
