"""Hugging Face parquet on disk: an image column with encoded bytes and, usually, an integer label column."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pipeline.errors import DataError, UsageError
from pipeline.io import storage
from pipeline.io.regular import open_regular
from pipeline.io.scan import ObjectFile

from .readers import FileReader
from .source import SourceImage


@dataclass(frozen=True, kw_only=True)
class HuggingFaceParquet:
    """Files of one split. A row is found by its number in its file; its row group is read once for its neighbours."""

    root: str
    files: tuple[str, ...]
    image_column: str
    label_column: str | None
    stated_classes: tuple[str, ...] | None
    kind: str = "Hugging Face parquet"

    def images(self) -> Iterator[SourceImage]:
        for file in self.files:
            table = _open(storage.join(self.root, file))
            stem, start = file.removesuffix(".parquet").replace("/", "_"), 0
            for group in range(table.num_row_groups):
                num_rows = table.metadata.row_group(group).num_rows
                labels: list[int | None] = [None] * num_rows
                if self.label_column:
                    labels = (
                        table.read_row_group(group, columns=[self.label_column], use_threads=False)
                        .column(0)
                        .to_pylist()
                    )
                for number, label in enumerate(labels):
                    yield SourceImage(
                        source=f"{stem}_{start + number:07d}",
                        file=file,
                        offset=start + number,
                        class_name=self._class_name(label),
                        group=f"{file}:{group}",
                    )
                start += num_rows

    def _class_name(self, label: int | None) -> str | None:
        if label is None or label < 0:
            return None
        if self.stated_classes and label < len(self.stated_classes):
            return self.stated_classes[label]
        return f"{label:04d}"

    def class_names(self) -> tuple[str, ...] | None:
        return self.stated_classes

    def notes(self) -> list[str]:
        return []

    def reader(self) -> "ParquetReader":
        return ParquetReader(self.root, self.image_column)


@dataclass(frozen=True)
class ParquetReader:
    """Images are rows of parquet files in the folder `root`; `offset` is the number of the row."""

    root: str
    image_column: str

    def read(self, file: str, offset: int, length: int) -> bytes:
        import pyarrow as pa

        place = storage.join(self.root, file)
        try:
            group, first = _row_group_of(place, offset)
            value = _images(place, group, self.image_column)[offset - first].as_py()
        except (FileNotFoundError, PermissionError) as error:
            raise storage.StoreError(
                f"{place} cannot be read ({error}). Is the source mounted and readable on this machine?"
            ) from None
        except pa.ArrowInvalid as error:
            raise DataError(f"{place} is damaged at row {offset} ({error}). Fetch it again.") from None
        data = value.get("bytes") if isinstance(value, dict) else value
        if data is None and isinstance(value, dict) and value.get("path"):
            return FileReader(self.root).read(value["path"], 0, -1)
        return data or b""


def open_parquet(root: str, files: list[str]) -> HuggingFaceParquet:
    """Look at the schema of the first file. Raises UsageError: no image column, or labels that are no integers."""
    import pyarrow as pa

    schema = _open(storage.join(root, files[0])).schema_arrow
    features = _features(schema)
    images = [field.name for field in schema if _holds_bytes(field.type)]
    if not images:
        raise UsageError(
            f"{storage.join(root, files[0])} has no column with encoded images (a struct with `bytes`, or binary); "
            f"its columns are: {', '.join(schema.names)}."
        )
    by_kind = [name for name in schema.names if features.get(name, {}).get("_type") == "ClassLabel"]
    by_name = [name for name in ("label", "labels", "fine_label") if name in schema.names]
    label = next((name for name in [*by_name, *by_kind] if pa.types.is_integer(schema.field(name).type)), None)
    other = [name for name in [*by_name, *by_kind] if not pa.types.is_null(schema.field(name).type)]
    if other and not label:
        raise UsageError(
            f"{storage.join(root, files[0])} has the label column '{other[0]}' of type {schema.field(other[0]).type}, "
            f"but a class is read from integers only. Write it as integers (a ClassLabel), or leave the column out to "
            f"go without classes."
        )
    names = features.get(label or "", {}).get("names")
    return HuggingFaceParquet(
        root=root,
        files=tuple(sorted(files)),
        image_column=images[0],
        label_column=label,
        stated_classes=tuple(names) if names else None,
    )


def _features(schema: Any) -> dict[str, Any]:
    try:
        return json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError):
        return {}


def _holds_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(field.name == "bytes" for field in kind)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


@lru_cache(maxsize=8)
def _open(place: str) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if storage.is_local(place):
        os.close(open_regular(place))  # Arrow would wait at a pipe
    try:
        return pq.ParquetFile(place if storage.is_local(place) else ObjectFile(place))
    except pa.ArrowInvalid as error:
        raise UsageError(f"{place} is not a whole parquet file ({error}). Fetch it again.") from None


def _row_group_of(place: str, row: int) -> tuple[int, int]:
    """(row group, number of its first row)."""
    metadata, first = _open(place).metadata, 0
    for group in range(metadata.num_row_groups):
        count = metadata.row_group(group).num_rows
        if row < first + count:
            return group, first
        first += count
    raise storage.StoreError(f"{place} has {first} rows, no row {row}: it was changed after it was listed.")


@lru_cache(maxsize=2)
def _images(place: str, group: int, column: str) -> Any:
    return _open(place).read_row_group(group, columns=[column], use_threads=False).column(0)
