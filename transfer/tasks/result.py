"""One finished measurement and its file, whose name is a hash of everything that decides the number."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from pipeline.io import storage

RESULT_VERSION = 2  # raised when the same settings would give other numbers


@dataclass(frozen=True, kw_only=True)
class Result:
    """One row of the table: a number, how far to trust it, what guessing gives, and how it came about."""

    task: str
    features: str
    """checkpoint, random (same network, untrained), pixels, colour, or the name of a control."""
    protocol: str
    variant: str = ""
    metric: str = "top1"
    value: float
    low: float
    high: float
    interval: str
    """What the 95 % interval is over: wilson (test samples), bootstrap (test samples) or t over n draws."""
    chance: float
    num_classes: int
    num_train: int
    num_test: int
    scores: dict[str, float] = field(default_factory=dict)
    """All metrics of this measurement, the main one included."""
    chosen: dict[str, Any] = field(default_factory=dict)
    draws: list[float] = field(default_factory=list)
    """The single values behind the mean where a protocol repeats itself."""
    per_class: list[float | None] = field(default_factory=list)
    confusion: list[list[int]] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    fit_s: float = 0.0
    pictures: list[str] = field(default_factory=list)
    """Places of PNG files that show single test samples."""
    notes: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        """'ridge 5-shot', 'knn'."""
        return f"{self.protocol} {self.variant}".strip()


def result_key(parts: dict[str, Any]) -> str:
    """sha256 of what decides a result: features, protocol and its settings, splits, metric, seed."""
    text = json.dumps({**parts, "version": RESULT_VERSION}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


class ResultStore:
    """A folder with one JSON file per finished task x features x protocol; the rest is skipped when it is there."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def find(self, key: str) -> list[Result] | None:
        """The rows of a finished protocol, or None. A damaged file counts as not there."""
        try:
            said = storage.read_json(self._place(key))
            return [Result(**row) for row in said["rows"]] if said["key"] == key else None
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
            return None

    def put(self, key: str, rows: list[Result]) -> None:
        storage.put_json(self._place(key), {"key": key, "rows": [dataclasses.asdict(row) for row in rows]})

    def _place(self, key: str) -> str:
        return storage.join(self.uri, f"{key[:24]}.json")
