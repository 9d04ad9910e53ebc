"""Models that come with the package: folders here, each with a checkpoint and the record of how it was made.

Every option and function that takes a checkpoint takes their names; this is the one place where a name becomes a place.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import DataError
from pipeline.io import storage

BOX = Path(__file__).parent
ABOUT = "about.json"
CHECKPOINT = "checkpoint.json"
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class About:
    """How a model of the box came to be. No number without the command or table that gives it."""

    made: str
    """what was trained on what, in a sentence or two"""
    data: tuple[str, ...]
    """the data sets, with their licences where they say one"""
    licence: str
    """of the weights"""
    commands: tuple[str, ...]
    """what made the weights and the scores"""
    scores: dict[str, str] = field(default_factory=dict)
    """what was measured -> the value, with unit and what to compare it with"""


def names() -> list[str]:
    """The models of the box."""
    return sorted(place.parent.name for place in BOX.glob(f"*/{CHECKPOINT}"))


def about(name: str) -> About:
    """The record of a model. Raises `DataError` when it is damaged."""
    place = str(BOX / name / ABOUT)
    try:
        values: dict[str, Any] = storage.read_json(place)
        lists: Any = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
        return About(**{**values, **lists})
    except (ValueError, TypeError, AttributeError, FileNotFoundError) as error:
        raise DataError(f"{place} is damaged ({error}). Install the package again.") from None


def checkpoint_place(text: str) -> str:
    """Where the checkpoint is that `text` names: an absolute path or URI.

    A path or URI as it is, else a model of the box. A path that has the name of a model wins, and that is said.
    """
    place = storage.resolve(text)
    if text not in names():
        return place
    if not storage.exists(place):
        return str(BOX / text)
    log.warning("%s is taken, not the model '%s' of `focusvit models`, whose name it has", place, text)
    return place
