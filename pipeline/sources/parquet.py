"""Hugging Face parquet on disk: an image column with encoded bytes and, usually, a column of labels."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from pipeline.errors import DataError, UsageError, shorten
from pipeline.io import storage
from pipeline.io.parquet import open_parquet_file

from .fields import ClassNames, TableColumns, choose_columns, numbered, read_label
from .readers import FileReader
from .source import NO_CHOICES, Choices, Source, SourceImage
from .splits import chosen_split

_SPLIT = "split"


@dataclass(kw_only=True)
class HuggingFaceParquet(Source):
    """Files of one split. A row is found by its number in its file; its row group is read once for its neighbours.

    Classes go by name: each file may list them in an order of its own. Rows whose `split` column names another split
    are left out.
    """

    files: tuple[str, ...]
    columns: TableColumns
    split: str | None
    kind: str = "Hugging Face parquet"
    choosable = ("image_column", "label_column")

    def _list(self) -> Iterator[SourceImage]:
        numbers, classes, others = ClassNames(), dict.fromkeys(self.stated_classes or ()), []
        split = self._split()
        for file in self.files:
            table = _look(storage.join(self.root, file))
            names = self._class_names(file, table.schema_arrow)
            if names and names.stated != self.stated_classes:
                others.append(file)
                classes.update(dict.fromkeys(names.stated or ()))
            stem, start, known = file.removesuffix(".parquet").replace("/", "_"), 0, {}
            for group in range(table.num_row_groups):
                for number, (label, of_split) in enumerate(self._labels(table, group, split is not None), start):
                    if split is not None and of_split != split:
                        self.passed.add(f"rows of the split {of_split}", f"row {number} of {file}")
                        continue
                    if label not in known:
                        place = f"row {number} of {storage.join(self.root, file)}"
                        known[label] = (names or numbers).name(read_label(label, place), place)
                    yield SourceImage(
                        source=f"{stem}_{number:07d}",
                        file=file,
                        offset=number,
                        class_name=known[label],
                        group=f"{file}:{group}",
                    )
                start += table.metadata.row_group(group).num_rows
        self.classes = numbers.ordered() if self.stated_classes is None else tuple(classes)
        self.lines = [self.columns.note(), *numbers.note()]
        if others:
            self.lines.append(
                f"classes: {len(others)} files list them otherwise, read by name ({', '.join(others[:3])})"
            )

    def _split(self) -> str | None:
        """The wanted value of the split column; None when there is no such column. Raises UsageError."""
        if self.split is None or _SPLIT not in self.columns.others:
            return None
        values: Counter[str | None] = Counter()
        for file in self.files:
            column = _look(storage.join(self.root, file)).read([_SPLIT], use_threads=False).column(0)
            values.update(column.unique().to_pylist())
        names = [str(value) for value in values if value is not None]
        return chosen_split(self.root, names, self.split) if names else None

    def _labels(self, table: Any, group: int, with_split: bool) -> Iterator[tuple[Any, str | None]]:
        """(label, split) of the rows of a group."""
        names = self.columns.label, _SPLIT if with_split else None
        read = table.read_row_group(group, columns=list(filter(None, names)), use_threads=False)
        nothing = [None] * table.metadata.row_group(group).num_rows
        yield from zip(*(read.column(name).to_pylist() if name else nothing for name in names))

    def _class_names(self, file: str, schema: Any) -> ClassNames | None:
        """Of this file, which must have the columns of the first; None: its labels are their own names."""
        place, first = storage.join(self.root, file), _look(storage.join(self.root, self.files[0])).schema_arrow
        for name in filter(None, (self.columns.image, self.columns.label)):
            if name not in schema.names or schema.field(name).type != first.field(name).type:
                found = schema.field(name).type if name in schema.names else "absent"
                raise UsageError(
                    f"the column '{name}' is {first.field(name).type} in {self.files[0]} and {found} in {place}. The "
                    f"files of a split must have the same columns: name one of them with --source, or write them alike."
                )
        names = _class_list(schema, self.columns.label)
        if (names is None) != (self.stated_classes is None):
            raise UsageError(
                f"{self.files[0]} and {place} do not both name their classes in their features, so their numbers "
                f"cannot be matched. Write the files alike."
            )
        if names is None:
            return None
        if names != self.stated_classes:
            twice = sorted(set(names) - set(_listed_classes(schema, self.columns.label)))
            if twice:
                raise UsageError(
                    f"{place} lists its classes otherwise than {self.files[0]}, and names occur twice in it, so they "
                    f"cannot be matched: {shorten(twice)}. Write the files with one list."
                )
        return ClassNames(names, f"the class list of {file}")

    def reader(self) -> "ParquetReader":
        return ParquetReader(self.root, self.columns.image)


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


def open_parquet(
    root: str, files: list[str], split: str | None = None, choices: Choices = NO_CHOICES
) -> HuggingFaceParquet:
    """Look at the schema of the first file. Raises UsageError when its image or label column cannot be told.

    `split` is the wanted value of a `split` column; None reads all rows.
    """
    files = sorted(files)
    place = storage.join(root, files[0])
    schema = _look(place).schema_arrow
    columns = choose_columns(place, schema, _features(schema), choices, partial(_first_value, place))
    return HuggingFaceParquet(
        root=root,
        files=tuple(files),
        columns=columns,
        split=split,
        stated_classes=_class_list(schema, columns.label),
    )


def _class_list(schema: Any, label: str | None) -> tuple[str, ...] | None:
    return numbered(_listed_classes(schema, label)) or None


def _listed_classes(schema: Any, label: str | None) -> list[str]:
    return [str(name) for name in _features(schema).get(label or "", {}).get("names") or ()]


def _features(schema: Any) -> dict[str, Any]:
    try:
        return dict(json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"])
    except (LookupError, ValueError, TypeError):
        return {}


def _first_value(place: str, column: str) -> Any:
    """The first value of a column that is not null, of the first rows."""
    batch = next(_open(place).iter_batches(batch_size=16, columns=[column], use_threads=False), None)
    return next((value for value in (batch.column(0).to_pylist() if batch else ()) if value), None)


def _look(place: str) -> Any:
    """As `_open`, while listing: what cannot be read is the user's to correct."""
    try:
        return _open(place)
    except DataError:
        raise
    except OSError as error:
        raise UsageError(f"{place} cannot be read ({error.strerror or error}). Correct its access.") from None


@lru_cache(maxsize=8)
def _open(place: str) -> Any:
    import pyarrow as pa

    try:
        return open_parquet_file(place)
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
