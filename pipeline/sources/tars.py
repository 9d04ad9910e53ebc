"""Image archives, read in place by offset: a tar of one tar per class, a tar of class folders, Tiny ImageNet's val."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline import storage, tar
from pipeline.errors import UsageError

from .folder import ANNOTATIONS, match_annotations, shorten
from .ilsvrc import is_val_name, match, val_classes
from .row import Row, is_image_name


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

    def rows(self) -> Iterator[Row]:
        place = storage.join(self.root, self.name)
        end = storage.size(place)
        with storage.open_read(place) as file:

            def read(offset: int, length: int) -> bytes:
                file.seek(offset)
                return file.read(length)

            found = [(member.name.removeprefix("./"), member) for member in tar.members(read, 0, end, place)]
            inner = [(name, member) for name, member in found if name.endswith(".tar")]
            if inner:
                yield from self._of_tars(read, inner, place)
            else:
                yield from self._of_images(read, found, place)

    def _of_tars(self, read, inner, place: str) -> Iterator[Row]:  # type: ignore[no-untyped-def]
        empty = []
        for name, outer in inner:
            class_name, count = PurePosixPath(name).stem, 0
            end = outer.offset + outer.size
            for member in tar.members(read, outer.offset, end, f"{place}, in its member {name},"):
                path = member.name.removeprefix("./")
                if is_image_name(path):
                    count += 1
                    source = path if path.startswith(f"{class_name}/") else f"{class_name}/{path}"
                    yield self._row(source, member, class_name)
            if not count:
                empty.append(name)
        if empty:
            raise UsageError(f"{len(empty)} of the class tars in {place} hold no image: {shorten(empty)}.")

    def _of_images(self, read, found, place: str) -> Iterator[Row]:  # type: ignore[no-untyped-def]
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
                yield self._row(f"images/{base}", member, classes[base])
            return
        if all(is_val_name(PurePosixPath(name).name) for name in images):
            for name, wnid in match(list(images), val_classes(self.root), place):
                yield self._row(f"{wnid}/{PurePosixPath(name).name}", images[name], wnid)
            return
        depth = _depth_of_classes([PurePosixPath(name).parts for name in images], place)
        for name, member in images.items():
            parts = PurePosixPath(name).parts
            yield self._row("/".join(parts[depth:]), member, parts[depth])

    def _row(self, source: str, member: tar.Member, class_name: str) -> Row:
        return Row(source=source, file=self.name, offset=member.offset, length=member.size, class_name=class_name)

    def class_names(self) -> tuple[str, ...] | None:
        return self.stated_classes

    def read(self, file: str, offset: int, length: int) -> bytes:
        data = storage.read_bytes(storage.join(self.root, file), offset, length)
        if len(data) != length:
            raise FileNotFoundError(f"{file} ended before byte {offset + length}: the archive changed or is cut")
        return data


def first_names(place: str, count: int = 64) -> list[str]:
    """Names of the first members of a tar, to see what it is."""
    with storage.open_read(place) as file:

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        found = tar.members(read, 0, storage.size(place), place)
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
