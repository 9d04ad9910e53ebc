"""Which fields hold the image and the label, and what stands in a label field: a number, a name, or nothing.

Columns are told by their features, then by the usual names and their content, never by their place.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from pipeline.errors import UsageError

from .source import Choices, is_image_name

# Names of label columns and of fields in json members; the first that is there is read.
LABEL_FIELDS = tuple(
    "label labels fine_label cls class class_id class_idx class_index label_id label_idx label_index target class_name "
    "label_name category category_id".split()
)
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?", re.ASCII)
_IMAGE_NAMES = ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp", "image_bytes", "image_data", "bytes")
_MAGIC = re.compile(rb"\xff\xd8\xff|\x89PNG|GIF8|BM|RIFF....WEBP|II\*\0|MM\0\*|P[1-6]", re.DOTALL)


class TableColumns(NamedTuple):
    """What is read of a table."""

    image: str
    label: str | None
    others: tuple[str, ...]  # of the same kinds, not read

    def note(self) -> str:
        more = f"; not read: {', '.join(self.others)}" if self.others else ""
        return f"columns: image from '{self.image}'; label from {repr(self.label) if self.label else 'nothing'}{more}"


def choose_columns(
    place: str, schema: Any, features: dict[str, Any], choices: Choices, first_value: Callable[[str], Any]
) -> TableColumns:
    """From an Arrow schema, Hugging Face's features and, when these do not tell, the first value of a column.

    Raises UsageError, with the option that settles it, when there is none or two could be meant.
    """
    kinds = {name: feature.get("_type") for name, feature in features.items() if isinstance(feature, dict)}
    image = _image_column(place, schema, kinds, choices.image_column, first_value)
    label = _label_column(place, schema, kinds, choices.label_column)
    others = [name for name in schema.names if name not in (image, label)]
    return TableColumns(image, label, tuple(others))


def _image_column(
    place: str, schema: Any, kinds: dict[str, Any], chosen: str, first_value: Callable[[str], Any]
) -> str:
    able = [field.name for field in schema if _holds_bytes(field.type)]
    if chosen:
        return _checked(place, "--image-column", chosen, able, schema, "holds encoded images (bytes)")
    typed = [name for name in able if kinds.get(name) == "Image"]
    able = typed or [name for name in able if kinds.get(name) is None]
    named = [name for name in _IMAGE_NAMES if name in able]
    if named:
        return named[0]
    found = typed or [name for name in able if _is_image(first_value(name))]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"{place} has {len(found)} columns with images, {', '.join(found)}: name the one to read with "
            f"--image-column."
        )
    raise UsageError(
        f"{place} has no column with encoded images (a struct with `bytes`, or binary); its columns are: "
        f"{', '.join(schema.names)}. If one holds images, name it with --image-column."
    )


def _label_column(place: str, schema: Any, kinds: dict[str, Any], chosen: str) -> str | None:
    able = [field.name for field in schema if _holds_labels(field.type)]
    if chosen:
        return _checked(place, "--label-column", chosen, able, schema, "holds one number or name a row")
    typed = [name for name in able if kinds.get(name) == "ClassLabel"]
    named = [name for name in LABEL_FIELDS if name in (typed or able)]
    if named:
        return named[0]
    if len(typed) > 1:
        raise UsageError(
            f"{place} has {len(typed)} label columns, {', '.join(typed)}: name the one to read with --label-column."
        )
    if typed:
        return typed[0]
    unable = [name for name in LABEL_FIELDS if name in schema.names and str(schema.field(name).type) != "null"]
    if unable:
        raise UsageError(
            f"{place} has the label column '{unable[0]}' of type {schema.field(unable[0]).type}, but a class is one "
            f"number or name a row. Write it so, name another with --label-column, or leave the column out to go "
            f"without classes."
        )
    return None


def _checked(place: str, option: str, name: str, able: list[str], schema: Any, what: str) -> str:
    if name in able:
        return name
    known = "is not of that kind" if name in schema.names else "is not there"
    raise UsageError(
        f"{option} {name}: this column of {place} {known}. It must be one that {what}: {', '.join(able) or 'none is'}."
    )


def _holds_bytes(kind: Any) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        return any(field.name == "bytes" for field in kind)
    return types.is_binary(kind) or types.is_large_binary(kind)


def _holds_labels(kind: Any) -> bool:
    from pyarrow import types

    checks = (types.is_integer, types.is_floating, types.is_boolean, types.is_string, types.is_large_string)
    return any(check(kind.value_type if types.is_dictionary(kind) else kind) for check in checks)


def _is_image(value: Any) -> bool:
    if isinstance(value, dict):
        return _is_image(value["bytes"]) if value.get("bytes") else is_image_name(value.get("path") or "")
    return isinstance(value, bytes) and bool(_MAGIC.match(value))


def read_label(value: Any, place: str) -> int | str | None:
    """A class number, a class name, or None: null, NaN, blank text and negative numbers are no label.

    Raises UsageError that names `place` for anything else: a fraction is no class, and a list holds several.
    """
    if isinstance(value, str):
        value = value.strip()
        if not _NUMBER.fullmatch(value):
            return value or None
        value = float(value) if "." in value else int(value)
    elif isinstance(value, bool):
        return str(value).lower()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, int | float) and value == value // 1:
        return int(value) if value >= 0 else None
    raise UsageError(
        f"{place} has the label {str(value)[:80]}; one class for each sample is needed, a whole number or a name."
    )


class ClassNames:
    """The classes of labels as they are read. `stated` is the class list when the source has one, from `origin`."""

    def __init__(self, stated: Iterable[str] | None = None, origin: str = "") -> None:
        self.stated = None if stated is None else numbered(stated)
        self._origin = origin
        self._numbers: set[int] = set()
        self._has_names = False

    def name(self, label: int | str | None, place: str) -> str | None:
        """The class name of a label. Raises UsageError for a number outside of the stated list."""
        if label is None:
            return None
        if isinstance(label, str):
            self._has_names = True
            return label
        if self.stated is None:
            self._numbers.add(label)
            return str(label)
        if label >= len(self.stated):
            raise UsageError(
                f"{place} has the class {label}, but {self._origin} names {len(self.stated)} classes, 0 to "
                f"{len(self.stated) - 1}. Correct one of them."
            )
        return self.stated[label]

    def ordered(self) -> tuple[str, ...] | None:
        """The class list in its order: as stated, or all numbers by size; None: by name."""
        if self.stated is not None:
            return self.stated
        return tuple(map(str, sorted(self._numbers))) if self._numbers and not self._has_names else None

    def note(self) -> list[str]:
        """That class ids differ from the labels, when they do."""
        numbers = sorted(self._numbers)
        if not numbers or self._has_names or numbers[-1] == len(numbers) - 1:
            return []
        return [
            f"labels: {len(numbers)} of the numbers 0 to {numbers[-1]}: they are the class names, and class ids are "
            f"their ranks in the class list"
        ]


def numbered(names: Iterable[str]) -> tuple[str, ...]:
    """A class list with a number after names that occur twice: `crane (1)` and `crane (2)` are two classes."""
    names = list(names)
    twice = {name for name, count in Counter(names).items() if count > 1}
    taken, next_number, unique = set(names), Counter[str](), []
    for name in names:
        if name in twice:
            plain = name
            while name in taken:
                next_number[plain] += 1
                name = f"{plain} ({next_number[plain]})"
            taken.add(name)
        unique.append(name)
    return tuple(unique)
