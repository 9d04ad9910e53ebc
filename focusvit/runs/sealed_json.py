"""Small JSON files of a run that prove themselves: one key holds the sha256 of everything else in the object.

Reading names the file and what is wrong with it, whatever was done to it: cut, edited, nested a thousand deep.
"""

import hashlib
import json
from typing import Any

from pipeline.errors import DataError
from pipeline.io import storage
from pipeline.io.json_text import json_text
from pipeline.secrets import masked_values

SEAL = "sha256_of_the_rest"
MAX_DEPTH = 32
"""more than any file of ours nests, and far less than what Python's own stack bears"""


def put_sealed(uri: str, values: dict[str, Any]) -> None:
    """Write an object with its seal; what is no finite number becomes null."""
    plain = masked_values(json.loads(json_text(values)))  # as a reader gets it: tuples are lists, keys are text
    storage.put_json(uri, {**plain, SEAL: _seal(plain)})


def read_sealed(uri: str) -> dict[str, Any]:
    """The object without its seal. One without a seal is of an earlier version and taken as it is.

    Raises:
        DataError: unreadable, no object, nested too deep, or not what its seal was made of.
        FileNotFoundError: there is none.
    """
    return open_sealed(uri)[0]


def open_sealed(uri: str) -> tuple[dict[str, Any], bool]:
    """As `read_sealed`, and whether there was a seal."""
    values = parse_object(storage.read_bytes(uri), uri)
    if SEAL not in values:
        return values, False
    seal = values.pop(SEAL)
    if seal != _seal(values):
        raise DataError(f"{uri} is not what was written: its content does not fit the sha256 in it.")
    return values, True


def parse_object(text: bytes | str, place: str) -> dict[str, Any]:
    """The JSON object in `text`; DataError that names `place` for anything else."""
    try:
        values = json.loads(text)
    except RecursionError:
        raise DataError(f"{place} is damaged: it nests deeper than {MAX_DEPTH}.") from None
    except ValueError as error:  # also bytes that are no UTF-8
        raise DataError(f"{place} is damaged: it is no JSON ({error}).") from None
    if not isinstance(values, dict):
        raise DataError(f"{place} is damaged: it holds no JSON object.")
    if _is_deep(values):
        raise DataError(f"{place} is damaged: it nests deeper than {MAX_DEPTH}.")
    return values


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for one in level
            if isinstance(one, (dict, list))
            for item in (one.values() if isinstance(one, dict) else one)
        ]
    return any(isinstance(one, (dict, list)) for one in level)


def _seal(values: dict[str, Any]) -> str:
    return hashlib.sha256(json_text(values, sort_keys=True).encode()).hexdigest()
