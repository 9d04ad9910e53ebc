"""Which split a name means. Folders, files, lists and columns call the same split `val`, `Validation` or `dev`.

Names count without case, with the aliases below, and with what publishers put after them (`train2017`, `test_set`). A
name that stands for no split (a class, or a split of the user's own such as `extra`) means itself alone.
"""

import re
from collections.abc import Iterable

from pipeline.errors import UsageError, shorten
from pipeline.io import storage

from .source import is_image_name

# The first alias that a source holds is read. `trainval` (VOC, Oxford Pets) trains where there is no `train`.
ALIASES = {
    "train": ("train", "training", "trainval"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_MEANING = {alias: split for split, aliases in ALIASES.items() for alias in aliases}
_NAME = re.compile(rf"({'|'.join(sorted(_MEANING, key=len, reverse=True))})([ _.-]?(set|split|images|data|\d{{1,4}}))*")


def meaning(name: str) -> str | None:
    """'train', 'val' or 'test' when `name` stands for such a split; None for any other name."""
    found = _NAME.fullmatch(name.strip().lower())
    return _MEANING[found[1]] if found else None


def aliases(split: str) -> tuple[str, ...]:
    """Lower-case names that the split may have, the first one first; a split of the user's own has its own name."""
    return ALIASES.get(meaning(split) or "", (split.lower(),))


def wanted_split(names: Iterable[str], asked: str) -> str | None:
    """The one of `names` that is the split `asked`; None when none is.

    The very name comes first, then the order of `ALIASES`, then names with something after them. Raises UsageError
    when two names are equally near, as train2014 and train2017 are to train.
    """
    ranks: dict[int, list[str]] = {}
    for name in sorted(set(names)):
        if (rank := _rank(name, asked)) is not None:
            ranks.setdefault(rank, []).append(name)
    if not ranks:
        return None
    nearest = ranks[min(ranks)]
    if len(nearest) > 1:
        raise UsageError(
            f"the source has {len(nearest)} splits that could be '{asked}': {', '.join(nearest)}. Name one of them "
            f"with --split, or point --source at it."
        )
    return nearest[0]


def _rank(name: str, asked: str) -> int | None:
    """How far `name` is from the split `asked`, 0 the nearest; None: another split."""
    plain, known = name.strip().lower(), aliases(asked)
    if name == asked:
        return 0
    if plain == asked.lower():
        return 1
    if plain in known:
        return 2 + known.index(plain)
    return 2 + len(known) if meaning(asked) and meaning(name) == meaning(asked) else None


def chosen_split(place: str, names: Iterable[str], asked: str) -> str:
    """As `wanted_split`, of the source at `place`. Raises UsageError also when none is."""
    names = sorted(set(names))
    if (found := wanted_split(names, asked)) is None:
        raise UsageError(
            f"the source {place} has no split '{asked}'; it holds {', '.join(names)}. "
            f"Name one of these with --split, or point --source at the folder or file of this split."
        )
    return found


def without_split(name: str) -> tuple[str | None, str]:
    """(split, the rest) of a name that begins or ends with a split: ('train', 'annot') of trainannot. A name without
    one is (None, name).
    """
    plain = name.strip()
    for alias in sorted(_MEANING, key=len, reverse=True):
        if plain.lower().startswith(alias):
            return _MEANING[alias], plain[len(alias) :]
        if re.search(rf"[^a-z]{alias}$", plain.lower()):
            return _MEANING[alias], plain[: -len(alias)]
    return None, name


def split_in(name: str) -> str | None:
    """The split word in the name of a file, such as 'validation' in 'imagenet-validation-00000-of-00014'."""
    return next((word for word in _words(name) if word in _MEANING), None)


def files_of_split(names: list[str], split: str) -> list[str]:
    """Those whose names hold a word for the split; all of them when no name tells a split. Raises UsageError."""
    if mine := [name for name in names if set(_words(name)) & set(aliases(split))]:
        return mine
    named = sorted({word for name in names for word in _words(name) if word in _MEANING})
    if named:
        raise UsageError(f"the tars ({shorten(names, 2)}) are of the splits {', '.join(named)}, not of '{split}'.")
    return names


def _words(name: str) -> list[str]:
    return re.split("[^a-z]+", name.lower())


def named_alike(uri: str, folders: list[str]) -> dict[str, str]:
    """Folder by split where the names of `folders` in `uri` differ in the split alone; empty when none do.

    Raises UsageError when the names hold classes as well (trainA, trainB, testA, testB), and when the class folders
    have splits inside.
    """
    alike: dict[str, dict[str, str]] = {}
    for name in folders:
        split, rest = without_split(name)
        if split:
            alike.setdefault(rest.lower(), {})[split] = name
    alike = {rest: found for rest, found in alike.items() if len(found) > 1}
    if len(alike) > 1:
        names = shorten(sorted(name for found in alike.values() for name in found.values()), 4)
        raise UsageError(
            f"the folders {names} in {uri} name splits and classes at once. Expected split folders that hold class "
            f"folders: {uri}/train/<class>/<image>. Move them, or name one of them with --source."
        )
    if not alike:
        _refuse_splits_in_classes(uri, folders)
    return next(iter(alike.values()), {})


def _refuse_splits_in_classes(uri: str, folders: list[str]) -> None:
    for name in folders[:2]:  # the first may lack a split; all of them would be listed for nothing
        inner, files = storage.list_inside(storage.join(uri, name))
        splits = [below for below in inner if meaning(below)]
        if len({meaning(below) for below in splits}) > 1 and not any(map(is_image_name, files)):
            raise UsageError(
                f"the folder {name} in {uri} holds the splits {', '.join(splits)}, so splits lie inside classes here. "
                f"Expected {uri}/train/<class>/<image>; or name one set, such as {uri}/{name}, with --source."
            )
