"""Colours, erasing and mixing on the device: as OpenCV and albumentations do it, the same bits always."""

import random
from collections import Counter
from typing import Any

import albumentations
import cv2
import numpy as np
import pytest
import torch

from focusvit.data.augment import FineView, View
from focusvit.data.batch import Batch
from focusvit.data.collate import collate
from focusvit.data.config import DataConfig, MixConfig
from focusvit.data.draws import BLEND_ONE, KINDS, PixelDraw, blur_taps, draw_pixels, draws_facts
from focusvit.data.mixing import Mix

SIDE = 24


def photo(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 256, (7, 7, 3), np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)


PHOTOS = [photo(seed) for seed in range(9)]


def done(images: list[np.ndarray], draws: list[PixelDraw]) -> list[np.ndarray]:
    views = [View(image, None, draw) for image, draw in zip(images, draws)]
    batch = collate(views, [0] * len(views), (np.arange(len(views)),) * 2, None).finished()
    return list(batch.images.permute(0, 2, 3, 1).numpy())


def drawn(kind: str, **settings: Any) -> PixelDraw:
    return PixelDraw(KINDS.index(kind), **settings)


def test_gray_and_solarized_are_those_of_opencv_and_albumentations() -> None:
    for kind, transform in (("gray", albumentations.ToGray(p=1)), ("solarize", albumentations.Solarize(p=1))):
        for before, after in zip(PHOTOS, done(PHOTOS, [drawn(kind)] * len(PHOTOS))):
            assert np.array_equal(after, transform(image=before)["image"])


@pytest.mark.parametrize("sigma", [0.1, 0.4, 1.1, 2.0])
def test_the_blur_is_a_gaussian(sigma: float) -> None:
    taps = blur_taps(sigma)
    assert sum(taps) == 256 and taps == taps[::-1]
    side = 2 * int(3.5 * sigma) + 1
    for before, after in zip(PHOTOS, done(PHOTOS, [drawn("blur", taps=taps)] * len(PHOTOS))):
        wanted = cv2.GaussianBlur(before.astype(np.float64), (side, side), sigma)
        assert abs(after - wanted).max() < 2


@pytest.mark.parametrize("factors", [(1.3, 1, 1), (0.7, 1, 1), (1, 1.3, 1), (1, 0.7, 1), (1, 1, 1.3), (1, 1, 0.7)])
def test_jitter_is_that_of_albumentations(factors: tuple[float, float, float]) -> None:
    ranges = dict(zip(("brightness", "contrast", "saturation"), ((f, f) for f in factors)))
    transform = albumentations.ColorJitter(**ranges, hue=(0, 0), p=1)
    for before, after in zip(PHOTOS, done(PHOTOS, [PixelDraw(jitter=factors)] * len(PHOTOS))):
        assert abs(after.astype(int) - transform(image=before)["image"].astype(int)).max() <= 1


def test_draws_have_their_frequencies_and_boxes_are_filled() -> None:
    data = DataConfig(image_px=64, colour="3-augment", colour_jitter=0.3, erase=0.25)
    rng = random.Random(0)
    draws = [draw_pixels(data, rng) for _ in range(900)]
    assert all(250 < count < 350 for count in Counter(draw.kind for draw in draws).values())
    assert all(bool(draw.taps) == (KINDS[draw.kind] == "blur") for draw in draws)
    jitters = np.array([draw.jitter for draw in draws])
    assert jitters.min() > 0.7 and jitters.max() < 1.3 and abs(np.corrcoef(jitters.T)[0, 1]) < 0.1
    boxes = [draw.box for draw in draws if draw.box]
    assert 180 < len(boxes) < 270
    shares = [(y1 - y0) * (x1 - x0) / 64**2 for y0, x0, y1, x1 in boxes]
    assert 0.015 < min(shares) and max(shares) < 0.35 and 0.1 < np.mean(shares) < 0.25
    black = np.zeros((64, 64, 3), np.uint8)
    for draw in [draw for draw in draws if draw.box][:5]:
        assert draw.box
        y0, x0, y1, x1 = draw.box
        after = done([black], [PixelDraw(box=draw.box, noise=draw.noise)])[0]
        assert after[y0:y1, x0:x1].any(2).mean() > 0.99 and 100 < after[y0:y1, x0:x1].mean() < 155
        after[y0:y1, x0:x1] = 0
        assert not after.any()


def everything(count: int) -> tuple[list[FineView], list[Mix]]:
    """`count` + 1 samples with every kind of draw, and `count` mixes of every kind."""
    data, rng = DataConfig(image_px=SIDE, colour="3-augment", colour_jitter=0.4, erase=0.5), random.Random(3)
    views = [FineView(photo(i), None, None, draw_pixels(data, rng)) for i in range(count + 1)]
    masks = np.random.default_rng(1).random((count, SIDE // 2, SIDE // 2)) < 0.4
    kinds = [Mix(None), Mix(None, 0.75, BLEND_ONE * 3 // 4), Mix(None, 0.6, None, masks[0])]
    return views, [kinds[i % 3] if i % 3 < 2 else Mix(None, 0.6, None, masks[i]) for i in range(count)]


def test_a_batch_gives_each_image_what_it_gets_alone() -> None:
    """To the last bit, so ranks and micro-batches cannot matter; and the loader's own tensors stay as they were."""
    views, mixes = everything(70)
    whole = collate(views, [0] * 71, (np.arange(71),) * 2, None, mixes=mixes)
    before = whole.images.clone()
    images = whole.finished().images
    assert torch.equal(whole.images, before) and not torch.equal(images, before)
    for i in range(70):
        alone = collate(views[i : i + 2], [0] * 2, (np.arange(2),) * 2, None, mixes=mixes[i : i + 1]).finished()
        assert torch.equal(alone.images[0], images[i]), i


def test_mixing_takes_finished_pixels_of_both() -> None:
    views, mixes = everything(6)
    finished = done([view.image for view in views], [view.draw for view in views])
    mixed = (
        collate(views, [0] * 7, (np.arange(7),) * 2, None, mixes=mixes).finished().images.permute(0, 2, 3, 1).numpy()
    )
    for i, mix in enumerate(mixes):
        host, guest = finished[i].astype(int), finished[i + 1].astype(int)
        if mix.mask is not None:
            wanted = np.where(np.kron(mix.mask, np.ones((2, 2), bool))[..., None], guest, host)
        else:
            wanted = host if mix.weight is None else (3 * host + guest + 2) // 4
        assert np.array_equal(mixed[i], wanted)


def test_an_unfinished_batch_is_not_trained_on() -> None:
    views, mixes = everything(3)
    batch = collate(views, [0] * 4, (np.arange(4),) * 2, None, mixes=mixes)
    with pytest.raises(ValueError, match="finished"):
        batch.split(None)
    assert len(batch.to("cpu").finished().split(2)) == 2
    plain: Batch = collate([View(PHOTOS[0], None)], [0], (np.arange(1),) * 2, None)
    assert plain.work is None and plain.finished() is plain


def test_only_configs_with_draws_name_their_version() -> None:
    assert draws_facts(DataConfig()) == draws_facts(DataConfig(colour="randaugment")) == {}
    for settings in ({"colour": "3-augment"}, {"colour_jitter": 0.1}, {"erase": 0.1}, {"mix": MixConfig(mixup=0.1)}):
        assert draws_facts(DataConfig(**settings)) == {"draws": 2}
