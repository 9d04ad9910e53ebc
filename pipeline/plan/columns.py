"""The rows of a source as they come, in packed columns: a million row objects would not fit the driver's 500 MB."""

import hashlib
import re
from array import array
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import UsageError, shorten
from pipeline.sources.source import SourceImage

PlanRow = dict[str, Any]  # of SCHEMA
SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("file", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("key", pa.string()),
        ("class_id", pa.int32()),
        ("label_file", pa.string()),
        ("labels", pa.list_(pa.int32())),
        ("sha256", pa.string()),  # what the source's bytes must be; empty when nobody said
    ]
)
_HASH_BYTES, _KEY_HEX, _STEM_CHARACTERS = 16, 16, 40


class _Text:
    """A column of strings: one buffer and the ends of its parts, as Arrow wants them."""

    def __init__(self) -> None:
        self.data, self.ends = bytearray(), array("i", [0])

    def add(self, text: str) -> None:
        self.add_bytes(text.encode())

    def add_bytes(self, data: bytes) -> None:
        self.data += data
        self.ends.append(len(self.data))

    def packed(self) -> pa.Array:
        return pa.StringArray.from_buffers(len(self.ends) - 1, pa.py_buffer(self.ends), pa.py_buffer(self.data))


class Columns:
    """Listed rows of one split with the hash that orders them. `checksums` are sha256 by source id, or empty."""

    def __init__(self, split: str, checksums: dict[str, str]) -> None:
        self.split = split
        self.checksums = checksums
        self.num_rows = self.num_unchecked = 0
        self.class_number: dict[str | None, int] = {}
        self._text = {name: _Text() for name in ("source", "file", "key", "label_file", "sha256")}
        self._offset, self._length, self._class = array("q"), array("q"), array("i")
        self._labels, self._label_ends = array("i"), array("i", [0])
        self._ids, self._groups = bytearray(), bytearray()

    def add(self, image: SourceImage) -> None:
        try:
            hashed = hash_id(f"{self.split}/{image.source}")
            label_file = image.label_file.encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"the source holds a file whose name is not valid UTF-8: "
                f"{(image.source + ' ' + image.label_file).strip()!r}. Rename it."
            ) from None
        text = self._text
        text["source"].add(image.source)
        text["file"].add(image.file)
        text["key"].add(_key(image.source, hashed[: _KEY_HEX // 2].hex()))
        text["label_file"].add_bytes(label_file)
        text["sha256"].add(self.checksums.get(image.source, ""))
        self._offset.append(image.offset)
        self._length.append(image.length)
        self._class.append(self.class_number.setdefault(image.class_name, len(self.class_number)))
        self._labels.extend(image.labels)
        self._label_ends.append(len(self._labels))
        self._ids += hashed
        if image.group:
            self._groups += hash_id(image.group)
        self.num_unchecked += bool(self.checksums) and image.source not in self.checksums
        self.num_rows += 1

    def classes(self, stated: tuple[str, ...] | None, place: str, known: tuple[str, ...] = ()) -> tuple[str, ...]:
        """The class list: `known` (of the data set's other splits) where it holds all that is here, so that a split may
        lack a class; else the `stated` one, else the sorted names. Raises UsageError when rows and list do not fit.
        """
        if not self.num_rows:
            raise UsageError(f"the source {place} holds no image.")
        seen = {name for name in self.class_number if name is not None}
        if unknown := sorted(seen - set(stated or seen)):
            raise UsageError(
                f"the source {place} holds {len(unknown)} classes that its class list of {len(stated or ())} does not "
                f"name: {shorten(unknown)}. Correct the list (wnids.txt, or the features of the parquet files)."
            )
        seen |= {stated[number] for number in set(self._labels)} if stated else set()
        if seen and seen <= set(known):
            return known
        return tuple(sorted(seen)) if stated is None else stated

    def hashes(self) -> tuple[np.ndarray, ...]:
        """Sort keys, uint64 (rows,), the most significant last as `np.lexsort` wants them: id, then group."""
        ids = np.frombuffer(self._ids, ">u8").astype(np.uint64).reshape(-1, 2)
        if not self._groups:
            return ids[:, 1], ids[:, 0]
        groups = np.frombuffer(self._groups, ">u8").astype(np.uint64).reshape(-1, 2)
        return ids[:, 1], ids[:, 0], groups[:, 1], groups[:, 0]

    def table(self, classes: tuple[str, ...], stated: tuple[str, ...] | None = None) -> pa.Table:
        """All rows as listed, of SCHEMA. Shares memory with these columns: nothing may be added afterwards. `labels`
        of rows are numbers in the list that the source `stated`.
        """
        rank = {name: number for number, name in enumerate(classes)}
        of_number = np.array([-1 if name is None else rank[name] for name in self.class_number], np.int32)
        columns = {name: text.packed() for name, text in self._text.items()}
        columns["offset"] = pa.array(np.frombuffer(self._offset, np.int64))
        columns["length"] = pa.array(np.frombuffer(self._length, np.int64))
        columns["class_id"] = pa.array(of_number[np.frombuffer(self._class, np.int32)])
        ends, labels = (np.frombuffer(a, np.int32) for a in (self._label_ends, self._labels or array("i", [0])))
        if stated and stated != classes and self._labels:
            labels = np.array([rank.get(name, -1) for name in stated], np.int32)[labels]
        columns["labels"] = pa.ListArray.from_arrays(pa.array(ends), pa.array(labels[: len(self._labels)]))
        return pa.table([columns[field.name] for field in SCHEMA], schema=SCHEMA)


def hash_id(text: str) -> bytes:
    """16 bytes that order samples; the first 8 end their keys. Raises UnicodeEncodeError."""
    return hashlib.blake2b(text.encode(), digest_size=_HASH_BYTES, person=b"focusvit order 1").digest()


def _key(source: str, hashed: str) -> str:
    """Readable stem and hash: [A-Za-z0-9_-] only (webdataset cuts keys at the first dot), unique by the hash."""
    stem = source.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return f"{re.sub('[^A-Za-z0-9_-]', '_', stem)[:_STEM_CHARACTERS]}-{hashed}"
