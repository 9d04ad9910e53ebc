"""A data set that this project wrote, as a source: ids, class names, labels and label maps of before."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.errors import DataError
from pipeline.io import storage, tar
from pipeline.io.dataset_folder import DATASET_FILE
from pipeline.io.scan import Scan, in_parallel

from .readers import span
from .source import Source, SourceImage


@dataclass(kw_only=True)
class OwnShards(Source):
    """The shards of one split. Images are those stored: reduced ones stay reduced."""

    split: str  # as dataset.json names it
    num_shards: int
    kind: str = "shards of focusvit"

    def _list(self) -> Iterator[SourceImage]:
        names = [f"{self.split}-{number:06d}.tar" for number in range(self.num_shards)]
        for rows in in_parallel(self._of_one, names):
            yield from rows

    def _of_one(self, file: str) -> list[SourceImage]:
        place = storage.join(self.root, file)
        with Scan(place) as scan:
            return [self._row(scan, file, key, found) for key, _, found in tar.samples(scan, scan.size, place)]

    def _row(self, read: Scan, file: str, key: str, members: dict[str, tar.Member]) -> SourceImage:
        try:
            meta = json.loads(read(members["json"].offset, members["json"].size))
            image = members["jpg" if "jpg" in members else "png"]
            number = int(read(members["cls"].offset, members["cls"].size)) if "cls" in members else None
            class_name = None if number is None else (self.stated_classes or ())[number]
            maps = members.get("seg.png")
            return SourceImage(
                source=meta["source"],
                file=file,
                offset=image.offset,
                length=image.size,
                class_name=class_name,
                group=file,  # neighbours in a tar are read together
                label_file=span(file, maps.offset, maps.size) if maps else "",
                labels=tuple(meta.get("labels", ())),
            )
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise DataError(
                f"sample {key} of {storage.join(self.root, file)} is damaged ({type(error).__name__}: {error}). "
                f"`focusvit verify {self.root}` finds what is wrong, `--repair` rebuilds it."
            ) from None


def read_dataset_file(root: str) -> dict[str, Any] | None:
    """`classes` and `splits` of a data set of ours; None when the `dataset.json` there is of somebody else."""
    try:
        content = json.loads(storage.read_bytes(storage.join(root, DATASET_FILE)))
        if content["format"] != "focusvit shards":
            return None
        return {"classes": tuple(content["classes"]), "splits": dict(content["splits"])}
    except (ValueError, KeyError, TypeError):
        return None
