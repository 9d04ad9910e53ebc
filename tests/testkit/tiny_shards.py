"""A small real data set in a folder, in a second: drawn shapes, real superpixels, real tars, index and dataset.json."""

import dataclasses
import hashlib
import io
from collections.abc import Collection, Mapping
from pathlib import Path

import cv2
import numpy as np

from pipeline.image.image import ImageConfig, decode_image
from pipeline.io import storage
from pipeline.shards.build import build_shard
from pipeline.shards.dataset import INDEX_DTYPE, SplitInfo, index_uri, shard_name, sidecar_uri
from pipeline.shards.sample import FORMAT_VERSION, Sample, encode
from pipeline.shards.sidecar import sidecar_bytes, sidecar_of
from pipeline.sources.embedded import draw_shape
from pipeline.superpixels.segment import SuperpixelConfig, Superpixels, segment_image

CLASSES = ("disc", "square", "triangle", "star")
_MADE: dict[tuple[int, int], tuple[np.random.Generator, list[tuple[bytes, np.ndarray, Superpixels]]]] = {}


def make_dataset(
    folder: Path,
    *,
    splits: dict[str, int] | None = None,
    per_shard: int = 9,
    side_px: int = 40,
    bad: Collection[int] = (),
    name: str = "tiny",
    dense: bool = False,
    labels: Mapping[int, int] | None = None,
) -> str:
    """Write the data set and return its path. `bad` samples of the train split hold bytes that are no image.

    `dense` samples also carry a label map: 0 for the ground, 1 + class for the shape, 255 in one corner.
    `labels` are other class ids of training samples, by the id of the drawn shape; -1 is no class.
    """
    infos = {}
    for split, count in (splits or {"train": 50, "val": 17}).items():
        starts = range(0, count, per_shard)
        given = labels if labels and split == "train" else {}
        index = np.zeros(count, INDEX_DTYPE)
        for shard, start in enumerate(starts):
            rows = [
                {"key": f"{split}-{i:04d}", "class_id": given.get(i % len(CLASSES), i % len(CLASSES)), "i": i}
                for i in range(start, min(start + per_shard, count))
            ]
            built = build_shard(
                rows,
                lambda row, split=split: _members(row, split, side_px, row["i"] in bad and split == "train", dense),
            )
            storage.put(str(folder / shard_name(split, shard)), built.data)
            sidecar = sidecar_of(built, "f", shard, {})
            storage.put(sidecar_uri(str(folder), split, shard), sidecar_bytes(sidecar))
            for row, offset, length in zip(rows, built.columns["offsets"], built.columns["lengths"]):
                index[row["i"]] = (shard, offset, length, row["class_id"])
        buffer = io.BytesIO()
        np.save(buffer, index)
        storage.put(index_uri(str(folder), split), buffer.getvalue())
        infos[split] = SplitInfo(
            num_samples=count, num_shards=len(starts), num_skipped=0, num_bytes=0,
            identity=f"{name}-{split}-{count}-{side_px}", fingerprint="f", root_hash="00" * 32, source="drawn",
        )  # fmt: skip
    storage.put_json(
        str(folder / "dataset.json"),
        {
            "format_version": FORMAT_VERSION,
            "classes": list(CLASSES),
            "superpixels": dataclasses.asdict(SuperpixelConfig()),
            "image": dataclasses.asdict(ImageConfig()),
            "splits": {split: dataclasses.asdict(info) for split, info in infos.items()},
        },
    )
    return str(folder)


def _drawn(split: str, side_px: int, number: int) -> tuple[bytes, np.ndarray, Superpixels]:
    """Image, mask and superpixels of a sample. Made once in a process: a hundred tests begin with the same ones."""
    rng, made = _MADE.setdefault((len(split), side_px), (np.random.default_rng([len(split), side_px]), []))
    while len(made) <= number:
        rgb, mask = draw_shape(rng, len(made) % len(CLASSES), side_px)
        image = cv2.imencode(".jpg", np.ascontiguousarray(rgb[:, :, ::-1]))[1].tobytes()
        made.append((image, mask, segment_image(decode_image(image), SuperpixelConfig())))
    return made[number]


def _members(row: dict, split: str, side_px: int, is_bad: bool, dense: bool) -> dict[str, bytes]:
    image, mask, superpixels = _drawn(split, side_px, row["i"])
    label_map = (mask * (1 + row["i"] % len(CLASSES))).astype(np.uint8)
    label_map[:4, :4] = 255
    return encode(
        Sample(
            key=row["key"],
            image=b"no image" if is_bad else image,
            image_ext="jpg",
            superpixels=superpixels,
            class_id=row["class_id"] if row["class_id"] >= 0 else None,
            meta={"sha256": hashlib.sha256(image).hexdigest()},
            label_map=label_map if dense else None,
        )
    )
