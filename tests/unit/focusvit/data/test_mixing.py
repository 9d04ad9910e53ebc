"""Mixing: exact shares, exactly K regions, none across the paste border, pixels conserved, partners by position."""

import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from focusvit.data.augment import FineView, TrainViews
from focusvit.data.collate import collate
from focusvit.data.config import DataConfig, MixConfig
from focusvit.data.loader import TrainLoader
from focusvit.data.mixing import Mix, _superpixel_mask, mix, paste
from pipeline.shards.dataset import open_dataset
from pipeline.superpixels.segment import SuperpixelConfig, segment_image
from testkit.tiny_shards import make_dataset

SIDE = 24


def view(seed: int, colour: int) -> FineView:
    rng = np.random.default_rng(seed)
    rgb = np.kron(rng.integers(0, 255, (6, 6, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    superpixels = segment_image(rgb, SuperpixelConfig(fine_regions=40))
    fine = TrainViews(DataConfig(image_px=2 * SIDE, map_px=SIDE)).fine(rgb, superpixels, (seed, 0, 0))
    return dataclasses.replace(fine, image=np.full((2 * SIDE, 2 * SIDE, 3), colour, np.uint8))


HOST, GUEST = view(0, 0), view(1, 255)


def pixels_of(mixed: Mix) -> np.ndarray:
    """(H, W): how much of the white guest is in each pixel of the black host, after the device's part."""
    batch = collate([HOST, GUEST], [0, 1], (np.arange(2),) * 2, None, mixes=[mixed]).finished()
    return batch.images[0, 0].numpy()


def same(first: Mix, second: Mix) -> bool:
    pairs = zip(dataclasses.astuple(first), dataclasses.astuple(second))
    return all(np.array_equal(a, b) for a, b in pairs)


@given(
    st.integers(0, SIDE - 1), st.integers(0, SIDE - 1), st.integers(1, SIDE), st.integers(1, SIDE), st.integers(2, 60)
)
@settings(max_examples=80, deadline=None)
def test_paste_laws(y: int, x: int, height: int, width: int, tokens: int) -> None:
    mask = np.zeros((SIDE, SIDE), np.bool_)
    mask[y : y + height, x : x + width] = True
    mixed = paste(HOST, GUEST, mask, tokens)
    share, image = mixed.share, pixels_of(mixed)
    assert mixed.map is not None
    counts = np.bincount(mixed.map.ravel(), minlength=tokens)
    assert len(counts) == tokens and counts.min() >= 1 and counts.sum() == SIDE * SIDE
    first = np.unique(mixed.map, return_index=True)[1]
    assert (np.diff(first) > 0).all()  # ids in raster order of first pixel
    assert share == pytest.approx(1 - (image == 255).mean())
    if share < 1:
        assert not set(np.unique(mixed.map[mask])) & set(np.unique(mixed.map[~mask]))  # no region on both sides
        assert np.array_equal(image[::2, ::2] == 255, mask)  # image and map were pasted alike


@given(st.integers(0, 2**32), st.floats(0, 1), st.integers(2, 60))
@settings(max_examples=60, deadline=None)
def test_superpixel_masks_obey_the_paste_laws(seed: int, share: float, tokens: int) -> None:
    """Whole regions of the guest, as many as fit: and then every law of a paste."""
    mask = _superpixel_mask(GUEST, share, random.Random(seed))
    regions = GUEST.fit(32).map
    assert regions is not None
    assert all(mask[regions == region].all() or not mask[regions == region].any() for region in range(32))
    assert mask.mean() <= share + 1e-9
    mixed = paste(HOST, GUEST, mask, tokens)
    host_share, image = mixed.share, pixels_of(mixed)
    assert mixed.map is not None
    counts = np.bincount(mixed.map.ravel(), minlength=tokens)
    assert len(counts) == tokens and counts.min() >= 1 and counts.sum() == SIDE * SIDE
    assert host_share == pytest.approx(1 - (image == 255).mean())
    if host_share < 1:
        assert not set(np.unique(mixed.map[mask])) & set(np.unique(mixed.map[~mask]))
        assert np.array_equal(image[::2, ::2] == 255, mask)
        guests = len(np.unique(mixed.map[mask]))  # tokens are shared out by area
        assert abs(guests - tokens * mask.mean()) <= 1


@given(st.integers(0, 2**32), st.sampled_from(["box", "superpixels"]), st.integers(2, 40), st.floats(0.2, 2))
@settings(max_examples=60, deadline=None)
def test_any_mix_gives_exactly_k_regions(seed: int, shape: Any, tokens: int, alpha: float) -> None:
    config = MixConfig(mixup=alpha, cutmix=alpha, cutmix_shape=shape, probability=0.9)
    mixed = mix(HOST, GUEST, tokens, config, random.Random(seed))
    assert same(mixed, mix(HOST, GUEST, tokens, config, random.Random(seed)))
    assert np.array_equal(np.unique(mixed.map), np.arange(tokens)) and 0 <= mixed.share <= 1


@pytest.mark.parametrize("shape", ["box", "superpixels"])
def test_cutmix_targets_follow_the_pixels(shape: Any) -> None:
    config = MixConfig(cutmix=1.0, cutmix_shape=shape)
    shares = []
    for seed in range(40):
        mixed = mix(HOST, GUEST, 12, config, random.Random(seed))
        assert mixed.share == pytest.approx(1 - (pixels_of(mixed) == 255).mean())
        shares.append(mixed.share)
    assert 0.3 < np.mean(shares) < 0.8 and np.std(shares) > 0.1


def test_mixup_blends_and_keeps_the_larger_hosts_map() -> None:
    for seed in range(10):
        mixed = mix(HOST, GUEST, 12, MixConfig(mixup=0.8), random.Random(seed))
        assert 0.5 <= mixed.share <= 1
        assert abs(pixels_of(mixed) - 255 * (1 - mixed.share)).max() <= 0.5
        assert np.array_equal(mixed.map, HOST.fit(12).map)


def test_fine_then_fit_equals_the_direct_way() -> None:
    rng = np.random.default_rng(3)
    rgb = np.kron(rng.integers(0, 255, (6, 9, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    superpixels = segment_image(rgb, SuperpixelConfig())
    views = TrainViews(DataConfig(image_px=32, map_px=16))
    for key in range(20):
        direct, fine = views(rgb, superpixels, 9, (key,)), views.fine(rgb, superpixels, (key,)).fit(9)
        assert np.array_equal(direct.map, fine.map) and np.array_equal(direct.image, fine.image)


@pytest.mark.parametrize("colour", ["3-augment", "randaugment"])
def test_strong_augmentation_keeps_image_and_map_together(colour: Any) -> None:
    """The image is the map's own picture: black and white halves. After any geometry they must still agree."""
    rgb = np.zeros((64, 64, 3), np.uint8)
    rgb[:, 32:] = 255
    regions = (np.arange(64) >= 32).astype(np.uint8)[None].repeat(64, 0)
    superpixels = segment_image(rgb, SuperpixelConfig())._replace(map=regions, merges=np.array([[0, 1]], np.uint8))
    views = TrainViews(DataConfig(image_px=48, map_px=48, crop_scale=(0.5, 1.0), colour=colour, colour_jitter=0.2))
    agreed = []
    for key in range(40):
        made = views.fine(rgb, superpixels, (key,))
        grey = made.image.mean(2)
        if made.fine is None or len(np.unique(made.fine)) < 2 or np.ptp(np.percentile(grey, (5, 95))) < 20:
            continue
        inside = made.fine == 1
        agreed.append(
            abs(grey[inside].mean() - grey[~inside].mean()) / (np.percentile(grey, 95) - np.percentile(grey, 5))
        )
    assert len(agreed) > 12 and np.median(agreed) > 0.9 and min(agreed) > 0.6


def test_partners_follow_the_global_batch_on_any_number_of_ranks(tmp_path: Path) -> None:
    split = open_dataset(make_dataset(tmp_path)).split("train")
    data = DataConfig(image_px=32, map_px=16, colour="3-augment", erase=0.5, mix=MixConfig(mixup=0.8, cutmix=1.0))

    def batches(world_size: int) -> list[list[Any]]:
        options: dict[str, Any] = {"seed": 1, "global_batch": 10, "total_samples": 30, "tokens": 7}
        loaders = [TrainLoader(split, data, rank=r, world_size=world_size, **options) for r in range(world_size)]
        ranks = [[batch.finished() for batch in loader] for loader in loaders]
        return [[rank[step] for rank in ranks] for step in range(3)]

    def joined(parts: list[Any], name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name).numpy() for part in parts])

    one = batches(1)
    for world_size in (2, 3, 7):
        for whole, parts in zip(one, batches(world_size)):
            for name in ("images", "maps", "class_ids", "mix_ids", "mix_share", "sample_ids"):
                assert np.array_equal(joined(whole, name), joined(parts, name)), (world_size, name)
    ids, partners = one[0][0].sample_ids.numpy(), one[0][0].mix_ids.numpy()
    assert np.array_equal(partners, split.class_ids[np.roll(ids, -1)])
    one[0][0].check(num_classes=4)


def test_token_budgets_are_the_same_on_every_rank(tmp_path: Path) -> None:
    split = open_dataset(make_dataset(tmp_path)).split("train")
    options: dict[str, Any] = {
        "seed": 1,
        "global_batch": 6,
        "total_samples": 72,
        "tokens": 7,
        "token_budgets": (4, 8, 16),
    }
    data = DataConfig(image_px=32, map_px=16)
    counts = [[b.check().num_tokens for b in TrainLoader(split, data, rank=r, world_size=2, **options)] for r in (0, 1)]
    assert counts[0] == counts[1] and set(counts[0]) == {4, 8, 16}
