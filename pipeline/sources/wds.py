"""Existing WebDataset tars: members `<key>.<image ending>` with `<key>.cls` or a label in `<key>.json`."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.errors import DataError, UsageError
from pipeline.io import storage, tar
from pipeline.io.scan import Scan, in_parallel

from .folder import shorten
from .readers import SpanReader
from .source import SourceImage, is_image_name

CLASS_NAMES = "classnames.txt"  # as clip-benchmark publishes it, one name on each line
_JSON_LABELS = ("label", "cls", "class_id", "class_index")


@dataclass(frozen=True, kw_only=True)
class WebDatasetTars:
    """Shards of one split. Ids are `<tar>/<key>`; images are read by offset, the tars are not unpacked."""

    root: str
    files: tuple[str, ...]
    stated_classes: tuple[str, ...] | None = None
    kind: str = "WebDataset tars"

    def images(self) -> Iterator[SourceImage]:
        for images in in_parallel(self._of_one, self.files):
            yield from images

    def _of_one(self, file: str) -> list[SourceImage]:
        place = storage.join(self.root, file)
        with Scan(place) as scan:
            return list(self._samples(scan, file, list(tar.members(scan, 0, scan.size, place))))

    def _samples(self, read: Scan, file: str, members: list[tar.Member]) -> Iterator[SourceImage]:
        samples: dict[str, dict[str, tar.Member]] = {}
        for member in members:
            folder, _, base = member.name.removeprefix("./").rpartition("/")
            stem, _, suffix = base.partition(".")
            found = samples.setdefault(f"{folder}/{stem}".lstrip("/"), {})
            if found.setdefault(suffix.lower(), member) is not member:
                raise DataError(
                    f"{file} holds {member.name} twice, so one of these samples would be lost. Keys must be unique in "
                    f"a tar: write it again."
                )
        for key, found in samples.items():
            image = next((member for suffix, member in found.items() if is_image_name(f".{suffix}")), None)
            if image is None:
                continue
            yield SourceImage(
                source=f"{file.removesuffix('.tar')}/{key}",
                file=file,
                offset=image.offset,
                length=image.size,
                class_name=self._class_name(read, found, f"{file}, sample {key}"),
                group=file,  # neighbours in a tar are read together
            )

    def _class_name(self, read: Scan, found: dict[str, tar.Member], place: str) -> str | None:
        label: Any = None
        if "cls" in found:
            label = read(found["cls"].offset, found["cls"].size).decode().strip()
        elif "json" in found:
            try:
                content = json.loads(read(found["json"].offset, found["json"].size))
            except ValueError as error:
                raise DataError(f"{place}: its json cannot be read ({error}). Fetch the tar again.") from None
            label = next((content[name] for name in _JSON_LABELS if name in content), None)
        if label is None:
            return None
        if isinstance(label, list | dict):
            raise UsageError(f"{place} has the label {label}; one class for each sample is needed, a number or a name.")
        try:
            number = int(label)
        except ValueError:
            return str(label)
        if self.stated_classes is None:
            return f"{number:04d}"
        if not 0 <= number < len(self.stated_classes):
            raise UsageError(
                f"{place} has the class {number}, but {CLASS_NAMES} names {len(self.stated_classes)} classes."
            )
        return self.stated_classes[number]

    def class_names(self) -> tuple[str, ...] | None:
        return self.stated_classes

    def notes(self) -> list[str]:
        return []

    def reader(self) -> SpanReader:
        return SpanReader(self.root)


def is_webdataset(names: list[str]) -> bool:
    """From the first member names of a tar: an image and its label share a key."""
    keys: dict[str, set[str]] = {}
    for name in names:
        stem, _, suffix = name.rsplit("/", 1)[-1].partition(".")
        keys.setdefault(stem, set()).add(suffix.lower())
    return any(
        {"cls", "json"} & suffixes and any(is_image_name(f".{s}") for s in suffixes) for suffixes in keys.values()
    )


def choose_split(names: list[str], split: str, aliases: tuple[str, ...], others: set[str]) -> list[str]:
    """Tars of a split by their names; all of them when no name tells a split. Raises UsageError."""
    import re

    words = {name: set(re.split("[^a-z]+", name.lower())) for name in names}
    mine = [name for name in names if words[name] & set(aliases)]
    if mine:
        return mine
    named = sorted({word for found in words.values() for word in found} & others)
    if named:
        raise UsageError(f"the tars ({shorten(names, 2)}) are of the splits {', '.join(named)}, not of '{split}'.")
    return names


def read_class_names(uri: str) -> tuple[str, ...] | None:
    """`classnames.txt` of a folder or of the one above it."""
    for place in (uri, uri.rpartition("/")[0]):
        if CLASS_NAMES in storage.list_names(place):
            lines = storage.read_bytes(storage.join(place, CLASS_NAMES)).decode().splitlines()
            return tuple(line.strip() for line in lines if line.strip())
    return None
