"""One shard under the loupe: what its tar and sidecar hold against the plan, down to the last map."""

import hashlib
from typing import Any

import numpy as np

from pipeline.errors import DataError
from pipeline.image.image import BadImage, decode_image
from pipeline.io import storage, tar
from pipeline.io.regular import NotAFileError
from pipeline.plan.plan import read_shard_rows
from pipeline.shards.build import Members, ShardSpec, columns_of, index_row, prove_machine
from pipeline.shards.dataset import plan_uri, sidecar_uri
from pipeline.shards.interop import dali_index, dali_name
from pipeline.shards.sample import FORMAT_VERSION, Sample, sample_of
from pipeline.shards.sidecar import read_sidecar, sidecar_bytes
from pipeline.superpixels.connected import connected_regions
from pipeline.superpixels.segment import SuperpixelConfig, segment_image

_MOST = 20  # problems listed for each shard


def check_shard(spec: ShardSpec, *, recompute: bool = False) -> dict[str, Any]:
    """Problems of one shard, as sentences; empty when all is well. Shaped as `work` of the executors.

    `recompute` also makes every map again from the stored image and compares (about 8 ms an image). `dali` says what is
    wrong with the DALI index, which follows from the tar; None when nothing is, or the tar itself is damaged.
    """
    prove_machine("")
    problems: list[str] = []
    result = {"shard": spec.shard, "num_samples": 0, "num_bad": 0, "problems": problems, "dali": None}
    try:
        data = read_whole(storage.join(spec.out, spec.name))
    except DataError as error:
        problems.append(str(error))
        return result
    sidecar = read_sidecar(spec)
    if sidecar is None:
        problems.append("has no sidecar that fits it: missing, damaged, of other settings, or of another size")
        return result
    if storage.read_bytes(sidecar_uri(spec.out, spec.split, spec.shard)) != sidecar_bytes(sidecar):
        problems.append("has a sidecar that states the same in other bytes: it was edited")
    if hashlib.sha256(data).hexdigest() != sidecar["sha256"]:
        problems.append("has other bytes than its sidecar says (sha256 differs)")
    try:
        rows = read_shard_rows(plan_uri(spec.out, spec.split), spec.shard)
        samples = read_samples(data, spec.name)
    except DataError as error:
        problems.append(f"cannot be compared with its plan: {error}")
        return result
    result["num_samples"] = len(samples)
    skipped = {(sample["source"], sample["key"]) for sample in sidecar["skipped"]}
    expected = [row for row in rows if (row["source"], row["key"]) not in skipped]
    if [key for key, _, _ in samples] != [row["key"] for row in expected] or len(rows) - len(expected) != len(skipped):
        problems.append(f"holds {len(samples)} samples; the plan names {len(expected)}, or others, or another order")
        return result
    for (key, _, members), row in zip(samples, expected):
        found = check_sample(key, members, row, spec.superpixels if recompute else None)
        problems.extend(f"sample {key}: {text}" for text in found[: _MOST - len(problems)])
    if not problems:
        problems += _check_sidecar(sidecar, spec, samples, expected, len(data))
    if not problems:
        result["dali"] = _check_dali(spec, data)
    return result


def read_whole(place: str) -> bytes:
    """All bytes of a file. Raises DataError, a sentence without its subject, when there is none to read."""
    try:
        return storage.read_bytes(place)
    except NotAFileError as error:
        raise DataError(f"cannot be read: {error}") from None
    except FileNotFoundError:
        raise DataError("is missing") from None
    except (PermissionError, IsADirectoryError) as error:
        raise DataError(f"cannot be read: {error.strerror}") from None


def _check_sidecar(
    sidecar: dict[str, Any],
    spec: ShardSpec,
    samples: list[tuple[str, int, Members]],
    rows: list[dict[str, Any]],
    num_bytes: int,
) -> list[str]:
    """What a sidecar states of sound samples, against themselves and their `rows` of the plan."""
    index = [index_row(members, offset, row["class_id"]) for (_, offset, members), row in zip(samples, rows)]
    true = {
        "format_version": FORMAT_VERSION,
        "shard": spec.shard,
        "size_bytes": num_bytes,
        "num_samples": len(samples),
        **columns_of(index),
    }
    wrong = [name for name, value in true.items() if name in sidecar and sidecar[name] != value]
    return [f"has a sidecar with other {', '.join(wrong)} than its samples and the plan have"] if wrong else []


def _check_dali(spec: ShardSpec, data: bytes) -> str | None:
    try:
        stored = read_whole(storage.join(spec.out, dali_name(spec.split, spec.shard)))
    except DataError as error:
        return str(error)
    return None if stored == dali_index(data) else "is not the index of its shard"


def recheck_shard(spec: ShardSpec) -> dict[str, Any]:
    """`check_shard` that also makes every map again."""
    return check_shard(spec, recompute=True)


def read_samples(data: bytes, place: str) -> list[tuple[str, int, Members]]:
    """(key, offset of its first header, members) of each sample of a shard. Raises DataError for a broken tar."""
    return [
        (key, start, {suffix: data[at.offset : at.offset + at.size] for suffix, at in found.items()})
        for key, (start, _), found in tar.samples(tar.in_memory(data), len(data), place)
    ]


def check_sample(key: str, members: Members, row: dict[str, Any], again: SuperpixelConfig | None) -> list[str]:
    """What is wrong with one sample. With `again` its map is also made from the stored image and compared."""
    try:
        sample = sample_of(key, members)
        rgb = decode_image(sample.image)
    except (ValueError, BadImage) as error:
        return [str(error)]
    problems = []
    class_id = row["class_id"] if row["class_id"] >= 0 else None
    if sample.class_id != class_id or sample.meta.get("source") != row["source"]:
        stored = f"{sample.meta.get('source')} of class {sample.class_id}"
        problems.append(f"is {stored}; the plan says {row['source']} of class {class_id}")
    problems += check_superpixels(sample, rgb.shape[:2])
    if again and not problems:
        fresh = segment_image(rgb, again)
        if not all(np.array_equal(a, b) for a, b in zip(fresh, sample.superpixels)):
            problems.append("its superpixels are not those of its image")
    return problems


def check_superpixels(sample: Sample, size: tuple[int, int]) -> list[str]:
    """Laws of a stored map: ids 0..n-1 in raster order, connected, the image's aspect, and a full order of merges."""
    ids, merges = sample.superpixels
    num = len(merges) + 1
    problems = []
    if sample.meta.get("superpixels", {}).get("regions") != num:
        problems.append(f"its json states another number of regions than {num}")
    found, first = np.unique(ids, return_index=True)
    if not np.array_equal(found, np.arange(num)) or not np.all(np.diff(first) > 0):
        problems.append(f"its map does not hold the ids 0 to {num - 1} in raster order")
    elif connected_regions(ids).max() + 1 != num:
        problems.append("its map has a region of several parts")
    (height, width), (h, w) = size, ids.shape
    if abs(h * width - w * height) > 1.01 * (height + width) and min(h, w) > 1:
        problems.append(f"its map of {w}x{h} has another shape than its image of {width}x{height}")
    return problems
