"""`--val-share`: one source as train and val, always the same images in each.

Of every class the images with the smallest hash of their id are val. Both splits are planned from the same listing, so
together they hold every image once. An image that comes later moves at most one other of its class.
"""

import hashlib

import numpy as np

from pipeline.errors import UsageError


def in_val(ids: list[str], class_ids: np.ndarray, classes: tuple[str, ...], share: float) -> np.ndarray:
    """bool (images,): which images are val. `ids` are source ids; class id -1 counts as one class more.

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
