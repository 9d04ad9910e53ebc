"""Existing WebDataset tars: members `<key>.<image ending>` with `<key>.cls` or a label in `<key>.json`."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pipeline.errors import DataError, UsageError, shorten
from pipeline.io import storage, tar
from pipeline.io.scan import Scan, in_parallel
from pipeline.io.text import decode_text, read_text

from .fields import LABEL_FIELDS, ClassNames, read_label
from .members import LABEL_MEMBERS, Part, check_stems, parts
from .members import group as members_by_key
from .source import NO_CHOICES, Choices, Source, SourceImage

CLASS_NAMES = "classnames.txt"  # as clip-benchmark publishes it, one name on each line
_JSON_LABELS = tuple(name for name in LABEL_FIELDS if name != "labels")  # our own shards keep several classes there


@dataclass
class _Tar:
    """What one tar gave, and how."""

    images: list[SourceImage] = field(default_factory=list)
    image_members: Counter[str] = field(default_factory=Counter)
    label_origins: Counter[str] = field(default_factory=Counter)
    passed: list[tuple[str, str]] = field(default_factory=list)  # (reason, name)


@dataclass(kw_only=True)
class WebDatasetTars(Source):
    """Shards of one split. Ids are `<tar>/<key>`; images are read by offset, the tars are not unpacked."""

    files: tuple[str, ...]
    choices: Choices = NO_CHOICES
    kind: str = "WebDataset tars"
    choosable = ("image_member", "label_column")
    _names: ClassNames = field(default_factory=ClassNames, init=False, repr=False)
    # by the bytes of a cls: its class and what it counts as
    _known: dict[bytes, tuple[str | None, str]] = field(default_factory=dict, init=False, repr=False)

    def _list(self) -> Iterator[SourceImage]:
        self._forget()
        yield from self._all(in_parallel(self._of_one, self.files))

    def images_of(self, read: Scan, file: str, members: list[tar.Member], lost: list[str]) -> Iterator[SourceImage]:
        """As `images`, of one tar whose members, and links that lead nowhere, are listed already."""
        self._forget()
        yield from self._all([self._samples(read, file, members, lost)])

    def _forget(self) -> None:
        """Before anything is read: a listing knows no class of the one before it."""
        self._names, self._known = ClassNames(self.stated_classes, CLASS_NAMES), {}

    def _all(self, tars: Iterable[_Tar]) -> Iterator[SourceImage]:
        images, labels = Counter[str](), Counter[str]()
        for found in tars:
            images.update(found.image_members)
            labels.update(found.label_origins)
            for reason, name in found.passed:
                self.passed.add(reason, name)
            yield from found.images
        self._check_choices(images, labels)
        self.classes = self._names.ordered()
        self.lines = [f"columns: image from {_listed(images)}; label from {_listed(labels)}", *self._names.note()]

    def _check_choices(self, images: Counter[str], labels: Counter[str]) -> None:
        """Raises UsageError for a chosen member or field that no sample has."""
        what = None
        if not images:
            what = f"an image member {self.choices.image_member}".rstrip()
        elif self.choices.label_column and not set(labels) - {"nothing"}:
            what = f"a label in the field {self.choices.label_column}"
        if what:
            found = "; ".join(self.passed.lines()).removeprefix("left out: ") or "images without a label"
            raise UsageError(f"no sample of {self.root}/{shorten(list(self.files), 2)} has {what}, but: {found}.")

    def _of_one(self, file: str) -> _Tar:
        place = storage.join(self.root, file)
        with Scan(place) as scan:
            members, lost = tar.followed(list(tar.members(scan, 0, scan.size, place, links=True)))
            return self._samples(scan, file, members, lost)

    def _samples(self, read: Scan, file: str, members: list[tar.Member], lost: list[str]) -> _Tar:
        found, stems = _Tar(), Counter[str]()
        found.passed += [("links that lead to no file of their tar", f"{file}/{name}") for name in lost]
        if not members:
            found.passed.append(("tars without a member", file))
        for key, group in members_by_key(file, members).items():
            place = f"{file}, sample {key}"
            samples = self._parts(tuple(group), place)
            num_read = 0
            for part in samples:
                class_name, origin = self._class_name(read, group.get(part.label), part.label, place)
                found.image_members[part.image.removeprefix(f"{part.stem}.")] += 1
                found.label_origins[origin] += 1
                num_read += 2 if part.label else 1
                stems[part.stem] += part.label.endswith("json")
                found.images.append(
                    SourceImage(
                        source=f"{file.removesuffix('.tar')}/{key}" + (f".{part.stem}" if part.stem else ""),
                        file=file,
                        offset=group[part.image].offset,
                        length=group[part.image].size,
                        class_name=class_name,
                        group=file,  # neighbours in a tar are read together
                    )
                )
            if num_read < len(group):
                found.passed += _not_read(f"{file}/{key}", group, samples)
        check_stems(stems, file)
        return found

    def _parts(self, suffixes: tuple[str, ...], place: str) -> tuple[Part, ...]:
        by_field = self.choices.label_column not in ("", "cls")
        try:
            return parts(
                suffixes,
                self.choices.image_member.lower().lstrip("."),
                LABEL_MEMBERS[::-1] if by_field else LABEL_MEMBERS,
            )
        except ValueError as error:
            raise UsageError(
                f"{place} {error}: which one is the image of the sample? Name it by what follows the key, such as "
                f"--image-member {str(error).rsplit(' ', 1)[-1]}."
            ) from None

    def _class_name(self, read: Scan, member: tar.Member | None, suffix: str, place: str) -> tuple[str | None, str]:
        """The class of a sample by its label member, and what it was read from, for people."""
        wanted = self.choices.label_column
        if member is None or (suffix.endswith("cls") and wanted not in ("", "cls")):
            return None, "nothing"
        names, known = self._names, self._known
        data = read(member.offset, member.size)
        if suffix.endswith("cls"):
            if data not in known:
                label = read_label(decode_text(data, f"{place}, its cls"), place)
                known[data] = names.name(label, place), "nothing" if label is None else "cls"
            return known[data]
        try:
            content = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{place}: its json cannot be read ({error}). Fetch the tar again.") from None
        if not isinstance(content, dict):
            raise UsageError(f"{place}: its json is no object with fields but {str(content)[:40]}. Write one.")
        name = next((name for name in ([wanted] if wanted else _JSON_LABELS) if name in content), None)
        label = read_label(content[name], place) if name else None
        return names.name(label, place), "nothing" if label is None else f"{name} of json"


def _not_read(name: str, group: dict[str, tar.Member], samples: tuple[Part, ...]) -> list[tuple[str, str]]:
    """(reason, name) of the members that no sample of a group is read from."""
    if not samples:
        return [(f"keys without an image, with {', '.join(sorted(group)[:4])}", name)]
    taken = {suffix for part in samples for suffix in (part.image, part.label)}
    dotted = any(part.stem for part in samples)  # then what stands before the last dot differs from one to the next
    return [
        (f"members .{suffix.rpartition('.')[2] if dotted else suffix}", name) for suffix in group if suffix not in taken
    ]


def _listed(counts: Counter[str]) -> str:
    """'jpg (90), png (10)'; one alone needs no number."""
    found = counts.most_common()
    return shorten([f"{name} ({count})" if len(found) > 1 else name for name, count in found])


def read_class_names(uri: str) -> tuple[str, ...] | None:
    """`classnames.txt` of a folder or of the one above it: line i names class i."""
    for place in (uri, uri.rpartition("/")[0]):
        if CLASS_NAMES in storage.list_names(place):
            file = storage.join(place, CLASS_NAMES)
            lines = [line.strip() for line in read_text(file).rstrip().splitlines()]
            if "" in lines:
                raise UsageError(
                    f"{file} has a blank line {lines.index('') + 1}, so it would name other classes. Fill it."
                )
            return tuple(lines)
    return None
