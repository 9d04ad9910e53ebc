"""Frozen dataclass configs to plain JSON values and back, and the difference between two of them."""

import dataclasses
import json
import types
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

from pipeline.errors import UsageError
from pipeline.secrets import masked_values

Config = TypeVar("Config")


def to_json(config: Any) -> dict[str, Any]:
    """Nested dataclasses become nested dicts, tuples become lists."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return plain


def from_json(cls: type[Config], values: dict[str, Any], place: str = "the config") -> Config:
    """Rebuild a config; missing keys take their default, and keys that the class has RETIRED are left out.

    Raises `UsageError` for keys that this version does not know, and for values that no such config can have.
    """
    hints, retired = typing.get_type_hints(cls), getattr(cls, "RETIRED", ())
    values = {name: value for name, value in values.items() if name not in retired}
    known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    if unknown:
        raise UsageError(f"{place} has the unknown key '{unknown[0]}'; this version knows {', '.join(sorted(known))}.")
    typed = {name: _typed(hints[name], value, f"{place}.{name}") for name, value in values.items()}
    try:
        return cls(**typed)
    except (TypeError, ValueError, AttributeError) as error:  # the config's own check, or a key that it must have
        raise UsageError(f"{place} is no {cls.__name__}: {error}.") from None


def one_of(options: Sequence[Any], values: dict[str, Any]) -> Any:
    """The config that `values` are of: the first of the options that knows all keys, else the first."""
    known = ({field.name for field in dataclasses.fields(one)} | set(getattr(one, "RETIRED", ())) for one in options)
    return next((one for one, names in zip(options, known) if set(values) <= names), options[0])


def _typed(hint: Any, value: Any, place: str) -> Any:
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    configs = tuple(option for option in options if dataclasses.is_dataclass(option))
    if configs and isinstance(value, dict):
        return from_json(one_of(configs, value), value, place)
    return tuple(value) if isinstance(value, list) else value


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"optim": {"lr": 1}} -> {"optim.lr": 1}, the names used on the command line and as MLflow params."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def difference(old: dict[str, Any], new: dict[str, Any], ignore: frozenset[str] = frozenset()) -> list[str]:
    """The keys whose values differ, as 'optim.lr: 0.001 -> 0.002' lines, in the order of the keys."""
    before, after = masked_values(flatten(old)), masked_values(flatten(new))  # files keep no secrets
    keys = sorted((set(before) | set(after)) - ignore)
    return [f"{key}: {before.get(key)!r} -> {after.get(key)!r}" for key in keys if before.get(key) != after.get(key)]
