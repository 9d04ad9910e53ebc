"""The images that a command is given: files, folders and addresses, under names that tell them apart."""

from collections.abc import Iterable
from typing import NamedTuple

from pipeline.errors import UsageError
from pipeline.io import storage
from pipeline.io.passed import PassedOver
from pipeline.sources.source import IMAGE_SUFFIXES, is_image_name


class Place(NamedTuple):
    """An image to read."""

    uri: str
    name: str  # for people: relative to the folder that was named, or as named
    inside: str  # path below that folder, or the base name of a file


def image_places(given: Iterable[str], passed: PassedOver | None = None) -> list[Place]:
    """Files as named, folders as the images below them in the order of their names, each image once; `passed` counts
    the other files.

    Raises UsageError for a place that does not exist and for a folder without an image.
    """
    given, places = tuple(given), list[Place]()
    if not given:
        raise UsageError("no image is named. Give files or folders with images after the options.")
    for text in given:
        uri = storage.resolve(text)
        if storage.is_folder(uri):
            files = sorted(storage.find_files(uri))
            inside = [name for name in files if is_image_name(name)]
            if not inside:
                endings = ", ".join(IMAGE_SUFFIXES)
                raise UsageError(f"the folder {uri} holds no image file ({endings}). Name another place.")
            before = "" if len(given) == 1 else f"{text.rstrip('/')}/"
            places += [Place(storage.join(uri, name), before + name, name) for name in inside]
            for name in files:
                if passed and not is_image_name(name):
                    passed.add("files of unknown ending", before + name)
        elif storage.exists(uri):
            places.append(Place(uri, text, storage.name_of(uri)))
        else:
            raise UsageError(f"the image {uri} does not exist. Check the path; blanks in a name need quotes.")
    first: dict[str, Place] = {}
    for place in places:
        first.setdefault(place.uri, place)
    return list(first.values())


def picture_names(places: list[Place]) -> list[str]:
    """A path of a PNG file for each image, below one folder: the image's own, numbered where two would meet."""
    names: list[str] = []
    taken: set[str] = set()
    for place in places:
        stem = place.inside.rpartition(".")[0] or place.inside
        name, number = f"{stem}.png", 1
        while name in taken:
            number += 1
            name = f"{stem}-{number}.png"
        taken.add(name)
        names.append(name)
    return names
