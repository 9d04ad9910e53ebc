"""A look at the first images of a plan, which are a random draw of all, before anything is built."""

import contextlib
import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.errors import DataError, shorten
from pipeline.image.image import BadImage, read_header
from pipeline.plan.plan import Plan
from pipeline.sources.source import Reader

from .sample import content_id

_PROBED = 32


@dataclass(frozen=True)
class Probed:
    """What one image is found to be."""

    content_id: int
    upright: bool


def probe(plan: Plan, reader: Reader) -> dict[str, Probed]:
    """Source id -> what was found; images that cannot be read are left to the build, which says what is wrong."""
    found: dict[str, Probed] = {}
    for row in plan.table.slice(0, _PROBED).to_pylist():
        with contextlib.suppress(OSError, DataError):
            data = reader.read(row["file"], row["offset"], row["length"])
            found[row["source"]] = Probed(content_id(hashlib.sha256(data).hexdigest()), _is_upright(data))
    return found


def _is_upright(data: bytes) -> bool:
    try:
        return read_header(data).upright
    except BadImage:
        return True


def rotated(first: Mapping[str, Probed]) -> list[str]:
    """A line of the plan when images state a rotation, as those of phones do."""
    names = sorted(name for name, one in first.items() if not one.upright)
    if not names:
        return []
    return [
        f"note     {len(names)} of the {len(first)} images looked at state a rotation (EXIF), which is not applied, as "
        f"in published ImageNet numbers: they lie as they are stored ({shorten(names, 2)})"
    ]


def replaced(first: Mapping[str, Probed], stored: np.ndarray, skipped: Collection[str]) -> list[str]:
    """A line when images of a finished split have other bytes today than in its shards, whose content ids are `stored`;
    the images `skipped` are in none."""
    names = sorted(name for name, one in first.items() if name not in skipped and one.content_id not in stored)
    if not names or not len(stored):  # shards of before this was recorded
        return []
    return [
        f"warning  {len(names)} of the {len(first)} images looked at have other bytes than when the shards were built, "
        f"which stay as they are ({shorten(names, 2)}): name another --out for the new ones"
    ]
