"""Views to one batch: images as planes, maps stacked, and what is still to be done to the pixels as tensors."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from .augment import FineView, View
from .batch import Batch
from .draws import KINDS, MAX_RADIUS, PLAIN, PixelDraw, radius_of
from .mixing import Mix
from .pixels import PixelWork, Sorted


def collate(
    views: Sequence[View | FineView],
    classes: list[int],
    ids: tuple[np.ndarray, np.ndarray],
    num_tokens: int | None,
    images: np.ndarray | None = None,
    mixes: Sequence[Mix] = (),
) -> Batch:
    """The batch of `views`; with `mixes` that of B mixes of B + 1 views: sample i is mixed with sample i + 1.

    `ids`: of samples and of views. `images`, uint8 (n, H, W, 3): where the images of all views lie already, in order.
    """
    size, draws = len(mixes) or len(views), [view.draw for view in views]
    shown = [mix.map for mix in mixes] or [view.map for view in views if isinstance(view, View)]
    stacked = [one for one in shown if one is not None]
    maps = torch.from_numpy(np.stack(stacked)) if stacked else None
    planes = _planes([view.image for view in views]) if images is None else _in_place(images)
    as_they_are = not mixes and all(draw is PLAIN or draw == PLAIN for draw in draws)
    return Batch(
        images=planes[:size],
        maps=maps,
        num_tokens=num_tokens if maps is not None else None,
        class_ids=torch.tensor(classes[:size], dtype=torch.int64),
        sample_ids=torch.tensor(ids[0][:size], dtype=torch.int64),
        view_ids=torch.tensor(ids[1][:size], dtype=torch.int64),
        mix_ids=torch.tensor(classes[1:], dtype=torch.int64) if mixes else None,
        mix_share=torch.tensor([mix.share for mix in mixes], dtype=torch.float32) if mixes else None,
        work=None if as_they_are else _work(planes[size:] if mixes else None, draws, mixes),
    )


def _in_place(images: np.ndarray) -> Tensor:
    """uint8 (n, 3, H, W) in the memory of (n, H, W, 3), as torch's own stack of such images has it; `Batch.finished`
    lays the planes one after another, on the device."""
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def _planes(images: Sequence[np.ndarray]) -> Tensor:
    """uint8 (n, 3, H, W) of n images (H, W, 3)."""
    out = torch.empty((len(images), 3, *images[0].shape[:2]), dtype=torch.uint8)
    for image, place in zip(images, out.numpy()):
        cv2.split(image, tuple(place))  # straight to its place: stack and permute take seven times as long
    return out


def _work(after: Tensor | None, draws: list[PixelDraw], mixes: Sequence[Mix]) -> PixelWork:
    taps = [draw.taps for draw in draws if draw.taps]
    cut = MAX_RADIUS - max(map(radius_of, taps), default=0)  # taps that are 0 in every image are left out
    jitters = [draw.jitter for draw in draws if draw.jitter]
    weights = [mix.weight for mix in mixes if mix.weight is not None]
    masks = [mix.mask for mix in mixes if mix.mask is not None]
    kinds = [0 if mix.weight is None and mix.mask is None else 1 if mix.mask is None else 2 for mix in mixes]
    return PixelWork(
        after=after,
        colours=_sorted([draw.kind + 1 for draw in draws], 1 + len(KINDS)),
        taps=torch.tensor([row[cut : len(row) - cut] for row in taps], dtype=torch.float32),
        jitter=torch.tensor(jitters, dtype=torch.float32) if jitters else None,
        boxes=tuple((i, *draw.box) for i, draw in enumerate(draws) if draw.box),
        noise=torch.from_numpy(np.frombuffer(b"".join(draw.noise for draw in draws), np.uint8).copy()),
        mixes=_sorted(kinds, 3),
        weights=torch.tensor(weights, dtype=torch.float32),
        masks=torch.from_numpy(np.stack(masks)) if masks else torch.empty((0, 1, 1), dtype=torch.bool),
    )


def _sorted(kinds: list[int], num_kinds: int) -> Sorted:
    found = np.array(kinds, np.int64)
    order = np.argsort(found, kind="stable")
    return Sorted(
        order=torch.from_numpy(order),
        back=torch.from_numpy(np.argsort(order)),
        sizes=tuple(np.bincount(found, minlength=num_kinds).tolist()),
    )
