"""Image archives, read in place by offset: a tar of one tar per class, a tar of class folders, Tiny ImageNet's val."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

from pipeline.errors import UsageError
from pipeline.io import storage, tar
from pipeline.io.scan import Scan, in_parallel

from .folder import ANNOTATIONS, match_annotations, shorten
from .ilsvrc import is_val_name, match, val_classes
from .readers import SpanReader
from .source import SourceImage, is_image_name


@dataclass(frozen=True, kw_only=True)
class TarArchive:
    """An uncompressed tar whose layout is read from the names in it. Nothing is extracted.

    Ids are those of the extracted layout (`<class>/<image>`), so an archive and its extraction give the same shards.
    """

    root: str  # the folder of the archive
    name: str
    stated_classes: tuple[str, ...] | None = None

    @property
    def kind(self) -> str:
        return f"tar archive {self.name}"

    def images(self) -> Iterator[SourceImage]:
        place = storage.join(self.root, self.name)
        with Scan(place) as scan:
            members = tar.members(scan, 0, scan.size, place)
            found = [(member.name.removeprefix("./"), member) for member in members if not _is_hidden(member.name)]
            inner = [(name, member) for name, member in found if name.endswith(".tar")]
            if inner:
                yield from self._of_tars(inner, place)
            else:
                yield from self._of_images(scan, found, place)

    def _of_tars(self, inner: list[tuple[str, tar.Member]], place: str) -> Iterator[SourceImage]:
        """The class tars are scanned beside each other: each header tells where the next one is, so one scan waits."""
        empty = []
        for (name, _), images in zip(inner, in_parallel(partial(self._of_class, place), inner)):
            yield from images
            if not images:
                empty.append(name)
        if empty:
            raise UsageError(f"{len(empty)} of the class tars in {place} hold no image: {shorten(empty)}.")

    def _of_class(self, place: str, item: tuple[str, tar.Member]) -> list[SourceImage]:
        name, outer = item
        class_name, images = PurePosixPath(name).stem, []
        with Scan(place) as scan:
            end = outer.offset + outer.size
            for member in tar.members(scan, outer.offset, end, f"{place}, in its member {name},"):
                path = member.name.removeprefix("./")
                if is_image_name(path) and not _is_hidden(path):
                    source = path if path.startswith(f"{class_name}/") else f"{class_name}/{path}"
                    images.append(self._image(source, member, class_name))
        return images

    def _of_images(self, read: Scan, found: list[tuple[str, tar.Member]], place: str) -> Iterator[SourceImage]:
        images = {name: member for name, member in found if is_image_name(name)}
        if not images:
            names = shorten([name for name, _ in found])
            raise UsageError(f"{place} holds neither images nor tars of images; its members are: {names}.")
        notes = next((member for name, member in found if PurePosixPath(name).name == ANNOTATIONS), None)
        if notes:
            by_name = {PurePosixPath(name).name: (name, member) for name, member in images.items()}
            text = read(notes.offset, notes.size).decode()
            classes = match_annotations(text, set(by_name), f"{ANNOTATIONS} in {place}")
            for base, (_, member) in by_name.items():
                yield self._image(f"images/{base}", member, classes[base])
            return
        if all(is_val_name(PurePosixPath(name).name) for name in images):
            for name, wnid in match(list(images), val_classes(self.root), place):
                yield self._image(f"{wnid}/{PurePosixPath(name).name}", images[name], wnid)
            return
        depth = _depth_of_classes([PurePosixPath(name).parts for name in images], place)
        for name, member in images.items():
            parts = PurePosixPath(name).parts
            yield self._image("/".join(parts[depth:]), member, parts[depth])

    def _image(self, source: str, member: tar.Member, class_name: str) -> SourceImage:
        return SourceImage(source, self.name, member.offset, member.size, class_name)

    def class_names(self) -> tuple[str, ...] | None:
        return self.stated_classes

    def notes(self) -> list[str]:
        return []

    def reader(self) -> SpanReader:
        return SpanReader(self.root)


def _is_hidden(name: str) -> bool:
    """As in `storage.find_files`: macOS packs a `._x.jpg` of attributes for each x.jpg."""
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


def first_names(place: str, count: int = 64) -> list[str]:
    """Names of the first members of a tar, to see what it is."""
    with Scan(place) as scan:
        found = tar.members(scan, 0, scan.size, place)
        return [member.name for member in itertools.islice(found, count)]


def _depth_of_classes(paths: list[tuple[str, ...]], place: str) -> int:
    """How many leading folders all images share, so that the next one is the class."""
    folders = [path[:-1] for path in paths]
    depth = 0
    while all(len(path) > depth for path in folders) and len({path[depth] for path in folders}) == 1:
        depth += 1
    if any(len(path) <= depth for path in folders):
        raise UsageError(
            f"the {len(paths)} images in {place} do not lie in class folders (<class>/<image>), and there is no "
            f"{ANNOTATIONS} that names their classes."
        )
    return depth
