"""Image archives, read in place by offset: a tar of one tar per class, a tar of class folders, Tiny ImageNet's val."""

import itertools
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

from pipeline.errors import UsageError, shorten
from pipeline.io import storage, tar
from pipeline.io.passed import PassedOver
from pipeline.io.scan import Scan, in_parallel
from pipeline.io.text import decode_text

from .dense import dense_splits
from .folder import ANNOTATIONS, match_annotations
from .ilsvrc import is_val_name, is_wnid, match, val_classes
from .members import LABEL_MEMBERS, is_webdataset
from .source import NO_CHOICES, Choices, Source, SourceImage, is_image_name
from .splits import chosen_split, meaning
from .wds import WebDatasetTars, read_class_names

_OTHERS, _LOST = "files of unknown ending", "links that lead to no file of the archive"
_HEAD = 64  # members that tell a tar of labelled samples, unless all labels come after them


@dataclass(kw_only=True)
class TarArchive(Source):
    """An uncompressed tar whose layout is read from the names in it. Nothing is extracted.

    Ids are those of the extracted layout (`<class>/<image>`), so an archive and its extraction give the same shards.
    """

    name: str  # of the archive, in the folder `root`
    split: str = ""  # the one to read where the archive has split folders
    choices: Choices = NO_CHOICES
    choosable = ("image_member", "label_column")  # looked at when it is listed

    def __post_init__(self) -> None:
        self.kind = f"tar archive {self.name}"

    def _list(self) -> Iterator[SourceImage]:
        place = storage.join(self.root, self.name)
        with Scan(place) as scan:
            members, lost = tar.followed(list(tar.members(scan, 0, scan.size, place, links=True)))
            if _has_samples(members):
                samples = WebDatasetTars(
                    root=self.root,
                    files=(self.name,),
                    stated_classes=read_class_names(self.root),
                    choices=self.choices,
                )
                self.kind, samples.passed = f"WebDataset tar archive {self.name}", self.passed
                yield from samples.images_of(scan, self.name, members, lost)
                self.classes, self.lines = samples.classes, samples.lines
                return
            self.choices.check(self.kind, ())
            self.passed.add(_LOST, *lost)
            found = [(member.name.removeprefix("./"), member) for member in members if not _is_hidden(member.name)]
            inner = [(name, member) for name, member in found if name.endswith(".tar")]
            if inner:
                self.passed.add(_OTHERS, *(name for name, _ in found if not name.endswith(".tar")))
                spans = [(name, self.name, at.offset, at.size) for name, at in inner]
                yield from _class_tars(self.root, spans, self.passed, place)
            else:
                yield from self._of_images(scan, found, place)

    def _of_images(self, read: Scan, found: list[tuple[str, tar.Member]], place: str) -> Iterator[SourceImage]:
        images: dict[str, tar.Member] = {}
        others = []
        for name, member in found:
            if not is_image_name(name):
                others.append(name)
            elif images.setdefault(name, member) is not member:
                self.passed.add("images that a later one of the same name replaces", name)
                images[name] = member
        if not images:
            raise UsageError(
                f"{place} holds neither images nor tars of images; its {len(found)} members are: {shorten(others)}."
            )
        notes = next((member for name, member in found if PurePosixPath(name).name == ANNOTATIONS), None)
        self.passed.add(_OTHERS, *(name for name in others if PurePosixPath(name).name != ANNOTATIONS))
        if notes:
            by_name = {PurePosixPath(name).name: (name, member) for name, member in images.items()}
            text = decode_text(read(notes.offset, notes.size), f"{ANNOTATIONS} in {place}")
            classes = match_annotations(text, set(by_name), f"{ANNOTATIONS} in {place}")
            for base, (_, member) in by_name.items():
                yield _image(f"images/{base}", self.name, member, classes[base])
            return
        if all(is_val_name(PurePosixPath(name).name) for name in images):
            for name, wnid in match(list(images), val_classes(self.root), place):
                yield _image(f"{wnid}/{PurePosixPath(name).name}", self.name, images[name], wnid)
            return
        images, depth = self._of_split(images, place)
        for name, member in images.items():
            parts = PurePosixPath(name).parts
            yield _image("/".join(parts[depth:]), self.name, member, parts[depth] if len(parts) > depth + 1 else None)

    def _of_split(self, images: dict[str, tar.Member], place: str) -> tuple[dict[str, tar.Member], int]:
        """(images of the split, how many folders lie above the class). All images where there are no split folders.

        Raises UsageError when the archive lacks the split, and for folders of images and label maps, which are read
        from folders alone.
        """
        folders = [PurePosixPath(name).parts[:-1] for name in images]
        shared = len(os.path.commonprefix(folders))  # noqa: RUF071 - of tuples, so of whole names
        level = {path[shared] for path in folders if len(path) > shared}
        if dense_splits("", sorted(level), [], inside=False):
            raise UsageError(
                f"{place} holds images and label maps in the folders {shorten(sorted(level))}. Label maps are read "
                f"from folders: unpack it, and name the folder with --source."
            )
        if not level or not all(map(meaning, level)) or len({meaning(name) for name in level}) < 2:
            if any(len(path) == shared for path in folders):
                raise UsageError(
                    f"the {len(images)} images in {place} do not lie in class folders (<class>/<image>), and there is "
                    f"no {ANNOTATIONS} and no <key>.cls or <key>.json that names their classes."
                )
            return images, shared
        chosen = chosen_split(place, level, self.split)
        self.lines.append(f"splits   {', '.join(sorted(level))}; read: {chosen}")
        mine = [(name, path) for name, path in zip(images, folders) if path[shared:][:1] == (chosen,)]
        in_classes = {name: images[name] for name, path in mine if len(path) > shared + 1}
        if in_classes:
            self.passed.add("images in no class folder", *(name for name, _ in mine if name not in in_classes))
        return in_classes or {name: images[name] for name, _ in mine}, shared + 1


@dataclass(kw_only=True)
class ClassTars(Source):
    """A folder of one tar per class, named after it: ILSVRC2012's training archive, unpacked once."""

    files: tuple[str, ...]
    kind: str = "folder of class tars"

    def _list(self) -> Iterator[SourceImage]:
        yield from _class_tars(self.root, [(file, file, 0, -1) for file in self.files], self.passed, self.root)


def open_tars(
    uri: str, names: list[str], split: str = "", choices: Choices = NO_CHOICES, *, alone: bool = True
) -> WebDatasetTars | TarArchive | ClassTars | None:
    """The tars of one split in a folder; where they are not `alone`, None unless they begin with labelled samples.

    Raises UsageError that says which tar was looked at and what it lacks.
    """
    if alone and len(names) == 1:
        return TarArchive(root=uri, name=names[0], split=split, choices=choices)
    name, members = _first_with_members(uri, names, whole=alone)
    if _has_samples(members):
        return WebDatasetTars(root=uri, files=tuple(names), stated_classes=read_class_names(uri), choices=choices)
    if not alone:
        return None
    if all(is_wnid(PurePosixPath(name).stem) for name in names) and any(is_image_name(m.name) for m in members):
        choices.check("folder of class tars", ())
        return ClassTars(root=uri, files=tuple(names))
    if not members:
        raise UsageError(f"all {len(names)} tars in {uri} are empty ({shorten(names, 3)}). Fetch them again.")
    endings = Counter(PurePosixPath(member.name).suffix.lower() or "no ending" for member in members)
    lacks = "no image" if not any(map(is_image_name, endings)) else "no label (.cls or .json) with the key of an image"
    raise UsageError(
        f"the {len(names)} tars in {uri} are no WebDataset tars: {name} has {lacks}; all its members were looked at: "
        f"{shorten([f'{ending} ({count})' for ending, count in endings.most_common()])}. Write <key>.cls for each "
        f"<key>.jpg, or name one tar of class folders with --source."
    )


def _first_with_members(uri: str, names: list[str], whole: bool) -> tuple[str, list[tar.Member]]:
    """The first tar that is not empty: its first members, and the `whole` of it when these show no sample."""
    for name in names:
        place = storage.join(uri, name)
        with Scan(place) as scan:
            members = tar.members(scan, 0, scan.size, place)
            head = list(itertools.islice(members, _HEAD))
            if head:
                return name, head if _has_samples(head) or not whole else head + list(members)
    return names[0], []


def _has_samples(members: list[tar.Member]) -> bool:
    endings = tuple(f".{ending}" for ending in LABEL_MEMBERS)
    return any(member.name.endswith(endings) for member in members) and is_webdataset(m.name for m in members)


def _class_tars(
    root: str, spans: list[tuple[str, str, int, int]], passed: PassedOver, place: str
) -> Iterator[SourceImage]:
    """Images of tars of (name, file, offset in it, size or -1), side by side: each header tells where the next one is,
    so one scan waits. A tar is named after its class.
    """
    empty = []
    for span, (found, others, lost) in zip(spans, in_parallel(partial(_class_tar, root), spans)):
        yield from found
        passed.add(_OTHERS, *others)
        passed.add(_LOST, *lost)
        if not found:
            empty.append(span[0])
    if empty:
        raise UsageError(f"{len(empty)} of the class tars in {place} hold no image: {shorten(empty)}.")


def _class_tar(root: str, span: tuple[str, str, int, int]) -> tuple[list[SourceImage], list[str], list[str]]:
    """Images, names of other members and of links that lead nowhere."""
    name, file, start, size = span
    class_name, place, found, others = PurePosixPath(name).stem, storage.join(root, file), [], []
    said = f"{place}, in its member {name}," if size >= 0 else place
    with Scan(place) as scan:
        end = start + size if size >= 0 else scan.size
        members, lost = tar.followed(list(tar.members(scan, start, end, said, links=True)))
        for member in members:
            path = member.name.removeprefix("./")
            if _is_hidden(path):
                continue
            if is_image_name(path):
                source = path if path.startswith(f"{class_name}/") else f"{class_name}/{path}"
                found.append(_image(source, file, member, class_name))
            else:
                others.append(path)
    return found, others, lost


def _image(source: str, file: str, member: tar.Member, class_name: str | None) -> SourceImage:
    return SourceImage(source, file, member.offset, member.size, class_name)


def _is_hidden(name: str) -> bool:
    """As in `storage.find_files`: macOS packs a `._x.jpg` of attributes for each x.jpg."""
    if not name.startswith(".") and "/." not in name:  # nearly all, in a tenth of the time
        return False
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))
