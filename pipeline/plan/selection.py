"""Which images of a source a plan takes: with which bytes, with or without labels, and for train or for val."""

import hashlib
import re
from collections.abc import Iterator

import numpy as np

from pipeline.errors import UsageError
from pipeline.io.passed import PassedOver
from pipeline.io.text import read_text
from pipeline.sources import Source, SourceImage
from pipeline.sources.source import Unlabelled

_SHA256_LINE = re.compile(r"([0-9a-fA-F]{64})[ \t]+\*?(.+)")
_WITHOUT = "images without a label"


def read_checksums(uri: str) -> dict[str, str]:
    """sha256 (lower-case hex) by source id, from the lines of `sha256sum`. Raises UsageError that names the line."""
    try:
        text = read_text(uri)
    except (FileNotFoundError, UsageError) as error:
        raise UsageError(f"cannot read the checksums {uri}: {error} --checksums names a text file.") from None
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        match = _SHA256_LINE.fullmatch(line.rstrip())
        if match:
            found[match[2].removeprefix("./")] = match[1].lower()
        elif line.strip() and not line.startswith("#"):
            raise UsageError(
                f"line {number} of the checksums {uri} is '{line[:80]}', not a sha256 and a name. "
                f"Make the file in the source folder with: find . -type f -print0 | xargs -0 sha256sum"
            )
    if not found:
        raise UsageError(f"the checksums {uri} hold no line of a sha256 and a name.")
    return found


def settled_images(source: Source, unlabelled: Unlabelled) -> Iterator[SourceImage]:
    """The images of a source, with a decision about those without a class, a `labels` list or a label map: training
    on classes would refuse them, hours later.

    Raises UsageError as the source, and when images with and without a class meet under `fail`.
    """
    without = PassedOver()
    num_images, num_without, with_class = 0, 0, False
    for image in source.images():
        if image.class_name is None and not image.labels and not image.label_file:
            num_without += 1
            without.add(_WITHOUT, image.source)
            if unlabelled == "skip":
                source.passed.add(_WITHOUT, image.source)
                continue
        num_images += 1
        with_class |= image.class_name is not None
        yield image
    if num_without and not num_images:
        raise UsageError(f"no image of {source.root} has a label, so --unlabelled skip leaves none. Leave it out.")
    if unlabelled == "fail" and with_class and num_without:
        found = without.lines()[0].removeprefix("left out: ")
        raise UsageError(
            f"{source.root} holds images with a label, and {found}. Choose --unlabelled skip to leave these out, or "
            f"--unlabelled keep to store them without a class: training on classes then refuses the split, "
            f"training without labels takes it."
        )


def in_val(ids: list[str], class_ids: np.ndarray, classes: tuple[str, ...], share: float) -> np.ndarray:
    """bool (images,): which images `--val-share` gives to val, always the same ones. `ids` are source ids; class id -1
    counts as one class more.

    Of every class those with the smallest hash of their id are val. Both splits are planned from the same listing, so
    together they hold every image once. An image that comes later moves at most one other of its class.
    A class of n images gives share * n, rounded up or down by a hash of its name (so that small classes add up to the
    share), and never its last image; at least one image in all is val. Raises UsageError when no class has two images.
    """
    chosen = np.zeros(len(ids), bool)
    order = np.lexsort((np.array([_hash(f"image {name}") for name in ids], np.uint64), class_ids))
    groups = np.split(order, np.flatnonzero(np.diff(class_ids[order])) + 1)
    for rows in groups:
        number = int(class_ids[rows[0]])
        name = classes[number] if number >= 0 else ""
        count = int(round(share * len(rows), 9) + _hash(f"class {name}") / 2**64)
        chosen[rows[: min(count, len(rows) - 1)]] = True
    largest = max(groups, key=len)
    if len(largest) < 2:
        raise UsageError(
            f"--val-share {share:g} cannot divide {len(ids)} images in {len(groups)} classes: each class keeps "
            f"one image to train, so none is left for val. Use a source with more images of a class."
        )
    chosen[largest[:1]] |= not chosen.any()
    return chosen


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, person=b"focusvit share 1").digest())
