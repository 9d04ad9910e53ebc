"""One shard from its rows: a pure function of rows, source and config, and the step that commits its result."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

import cv2

from pipeline.errors import DataError
from pipeline.image.image import BadImage, ImageConfig, prepare_image, prepare_label_map, read_header
from pipeline.io import tar
from pipeline.plan.columns import PlanRow
from pipeline.sources import Reader
from pipeline.superpixels.segment import SuperpixelConfig, segment_image

from .dataset import COLUMNS, shard_name
from .fingerprint import golden_digest, machine
from .sample import Sample, content_id, encode

Members = dict[str, bytes]


@dataclass(frozen=True, kw_only=True)
class ShardSpec:
    """All that a worker needs to make one shard; a few hundred bytes, whatever the size of the data."""

    out: str
    split: str
    shard: int
    source: Reader
    image: ImageConfig
    superpixels: SuperpixelConfig
    fingerprint: str
    golden: str  # digest that this machine must reach, see fingerprint.golden_digest
    skip_bad: bool  # False: a shard with a bad sample is not written
    isolated: bool = False  # True: each sample in a child process, because a worker of this shard died

    @property
    def name(self) -> str:
        return shard_name(self.split, self.shard)


@dataclass(frozen=True, kw_only=True)
class BuiltShard:
    """The bytes of a tar and where its samples lie in it."""

    data: bytes
    columns: dict[str, list[int]]  # of `index_row`, a number for each sample
    bad: list[dict[str, str]]  # source, key and reason of each sample that cannot be stored


def make_sample(row: PlanRow, source: Reader, image: ImageConfig, superpixels: SuperpixelConfig) -> Members:
    """Members of one sample. Raises BadImage when its bytes are no usable image, OSError when they cannot be read."""
    data = _read(source, row["file"], row["offset"], row["length"])
    sha256 = hashlib.sha256(data).hexdigest()
    if row["sha256"] and sha256 != row["sha256"]:
        raise BadImage(f"has other bytes than its checksum says (sha256 {sha256[:12]}, expected {row['sha256'][:12]})")
    header = read_header(data)
    stored, ext, rgb = prepare_image(data, image, header)
    found = segment_image(rgb, superpixels)
    meta = {
        "source": row["source"],
        "sha256": sha256,
        "height": header.height,
        "width": header.width,
        "superpixels": {"regions": len(found.merges) + 1, **asdict(superpixels)},
    }
    if row["labels"]:
        meta["labels"] = row["labels"]
    label_map = None
    if row["label_file"]:
        label_map = prepare_label_map(_read(source, row["label_file"], 0, -1), (header.height, header.width), rgb.shape)
    return encode(
        Sample(
            key=row["key"],
            image=stored,
            image_ext=ext,
            superpixels=found,
            class_id=row["class_id"] if row["class_id"] >= 0 else None,
            meta=meta,
            label_map=label_map,
        )
    )


def _read(source: Reader, file: str, offset: int, length: int) -> bytes:
    """Bytes of the source. A file that is not there or may not be read is the sample's fault, a broken disk is not."""
    try:
        return source.read(file, offset, length)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise BadImage(f"cannot be read: {error}") from None


def build_shard(rows: Iterable[PlanRow], make: Callable[[PlanRow], Members]) -> BuiltShard:
    """The tar of `rows`, in order. The same rows and images give the same bytes, on any worker, any number of times.

    `make` turns a row into members; a BadImage from it costs that sample only, other exceptions end the build.
    """
    index, bad = list[tuple[int, ...]](), list[dict[str, str]]()

    def files() -> Iterator[tuple[str, bytes]]:
        position = 0
        for row in rows:
            try:
                members = make(row)
            except BadImage as error:
                bad.append({"source": row["source"], "key": row["key"], "reason": str(error)})
                continue
            yield from ((f"{row['key']}.{suffix}", content) for suffix, content in members.items())
            index.append(index_row(members, position, row["class_id"]))
            position += index[-1][1]

    data = b"".join(tar.written(files()))
    return BuiltShard(data=data, columns=columns_of(index), bad=bad)


def index_row(members: Members, offset: int, class_id: int) -> tuple[int, ...]:
    """What a sidecar states of the sample at `offset` of its tar, in the order of COLUMNS."""
    merges = members["merges.npy"]  # an .npy file of version 1 with two bytes a row, written by sample.encode
    num_regions = (len(merges) - 10 - int.from_bytes(merges[8:10], "little")) // 2 + 1
    length = sum(tar.BLOCK + tar.padded(len(data)) for data in members.values())
    return offset, length, class_id, num_regions, content_id(json.loads(members["json"])["sha256"])


def columns_of(index: Sequence[tuple[int, ...]]) -> dict[str, list[int]]:
    """Rows of `index_row` as the columns of a sidecar."""
    return {name: [row[i] for row in index] for i, name in enumerate(COLUMNS)}


def prove_machine(golden: str) -> None:
    """Once per process: one thread for each library, and the golden image. Raises DataError that names the machine."""
    cv2.setNumThreads(1)  # a worker holds one CPU; the pool of OpenCV would take all of them
    if golden and golden_digest() != golden:
        raise DataError(
            f"the machine {machine()} makes other bytes of the golden image (digest {golden_digest()[:12]}, "
            f"the driver's is {golden[:12]}), so its shards would differ. Give it the driver's versions "
            f"(constraints.txt, the same CPU family for fast-slic), or take it out of the cluster."
        )
