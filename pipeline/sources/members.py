"""How the members of a WebDataset tar make samples, by their names alone.

WebDataset's rule: a key ends at the first dot of the base name, the rest names the member (`jpg`, `mask.png`).
Many tars break it with dots in the stem (`photo.001.jpg`, `photo.001.cls`): by the rule all `photo.*` are one sample.
"""

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from pipeline.errors import DataError, UsageError
from pipeline.io.tar import Member

from .source import is_image_name

LABEL_MEMBERS = ("cls", "json")


class Part(NamedTuple):
    """A sample in a group of members with one key."""

    stem: str  # what its name has after the first dot, when the dot is part of the name
    image: str  # suffixes of its members, from the first dot on
    label: str  # "" when there is none


def group(file: str, members: Iterable[Member]) -> dict[str, dict[str, Member]]:
    """Members by key (up to the first dot) and suffix. Raises DataError for a name that occurs twice."""
    groups: dict[str, dict[str, Member]] = {}
    for member in members:
        folder, _, base = member.name.removeprefix("./").rpartition("/")
        stem, _, suffix = base.partition(".")
        found = groups.setdefault(f"{folder}/{stem}".lstrip("/"), {})
        if found.setdefault(suffix.lower(), member) is not member:
            raise DataError(
                f"{file} holds {member.name} twice, so one of these samples would be lost. Keys must be unique in "
                f"a tar: write it again."
            )
    return groups


@lru_cache(maxsize=4096)  # nearly all keys of a tar have the same suffixes
def parts(
    suffixes: tuple[str, ...], image_member: str = "", endings: tuple[str, ...] = LABEL_MEMBERS
) -> tuple[Part, ...]:
    """Samples in a group. A bare image ending is the image, whatever compound ones (`mask.png`) stand beside it.

    Stems with dots are told by labels: `001.jpg` with `001.cls`, or with `001.json` where nothing is bare. Raises
    ValueError, with the images in question, when several or only compound endings are left and no `image_member` says
    which one it is. `endings` of labels, the preferred one first.
    """
    images = [suffix for suffix in suffixes if is_image_name(f".{suffix}")]
    labels = {suffix for suffix in suffixes if suffix.rpartition(".")[2] in LABEL_MEMBERS}
    if image_member:
        label = _label("", labels, endings) or _label(_stem(image_member), labels, endings)
        return (Part("", image_member, label),) if image_member in suffixes else ()
    bare = [suffix for suffix in images if "." not in suffix]
    if len(bare) > 1:
        raise ValueError(f"has the images {', '.join(bare)}")
    found = [Part("", bare[0], _label("", labels, endings))] if bare else []
    compound: dict[str, list[str]] = {}
    for suffix in images:
        if "." in suffix:
            compound.setdefault(_stem(suffix), []).append(suffix)
    is_one = bool(bare or _label("", labels, endings))
    told_by = LABEL_MEMBERS[:1] if is_one else LABEL_MEMBERS
    dotted = [stem for stem in compound if any(f"{stem}.{ending}" in labels for ending in told_by)]
    if dotted and not is_one:
        # those without a label are samples too, but not members of one: `001.mask.png` beside `001.jpg`
        dotted = [stem for stem in compound if not any(stem.startswith(f"{other}.") for other in compound)]
    for stem in dotted:
        if len(compound[stem]) > 1:
            raise ValueError(f"has the images {', '.join(compound[stem])}")
        found.append(Part(stem, compound[stem][0], _label(stem, labels, endings)))
    if images and not found:
        raise ValueError(f"has no image member but {', '.join(images)}")
    return tuple(found)


def _label(stem: str, labels: set[str], endings: tuple[str, ...]) -> str:
    names = [f"{stem}.{ending}" if stem else ending for ending in endings]
    return next((name for name in names if name in labels), "")


def check_stems(found: Counter[str], file: str) -> None:
    """Refuse stems that only a json tells from member names, when the same word occurs under several keys."""
    words = sorted(stem for stem, count in found.items() if stem and count > 1 and stem.replace("_", "").isalpha())
    if words:
        named = ", ".join(f"<key>.{word}.*" for word in words[:4])
        raise UsageError(
            f"{file} has images called {named} with a json each: are these members of one sample or samples of their "
            f"own? Name the image with --image-member {words[0]}.<ending>, or write keys without dots."
        )


def is_webdataset(names: Iterable[str]) -> bool:
    """From member names of a tar: an image and its label share a key."""
    groups: dict[str, list[str]] = {}
    for name in names:
        stem, _, suffix = name.rpartition("/")[2].partition(".")
        groups.setdefault(f"{name.rpartition('/')[0]}/{stem}", []).append(suffix.lower())
    for suffixes in groups.values():
        labelled = {_stem(suffix) for suffix in suffixes if suffix.rpartition(".")[2] in LABEL_MEMBERS}
        if any({"", _stem(suffix)} & labelled for suffix in suffixes if is_image_name(f".{suffix}")):
            return True
    return False


def _stem(suffix: str) -> str:
    return suffix.rpartition(".")[0]
