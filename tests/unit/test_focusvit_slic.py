"""SLIC in torch: exactly K regions whatever the image holds, no value read back, as good as fast-slic."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from focusvit.slic import slic, to_unit_range


@pytest.mark.parametrize("tokens", [1, 7, 64, 196])
@pytest.mark.parametrize("kind", ["noise", "flat", "halves"])
def test_every_region_is_present(tokens, kind):
    images = torch.full((3, 3, 64, 48), 90, dtype=torch.uint8)
    if kind == "noise":
        images = torch.randint(0, 256, images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    if kind == "halves":
        images[..., 24:] = 255
    maps = slic(images, tokens)
    assert maps.shape == (3, 32, 24)
    for one in maps:
        assert torch.equal(one.unique(), torch.arange(tokens))


def test_an_image_alone_gets_the_map_it_gets_in_a_batch():
    images = torch.rand(10, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    together = slic(images, 16)
    assert torch.equal(slic(images[9:], 16), together[9:])


def test_regions_follow_a_border_that_cells_would_cut():
    image = torch.zeros(1, 3, 64, 64)
    image[..., 26:] = 1.0  # column 13 of 32: cells of 16 regions end at 8, 16 and 24
    maps = slic(image, 16)[0]
    left, right = set(maps[:, :13].flatten().tolist()), set(maps[:, 13:].flatten().tolist())
    shared = sum(int((maps == k).sum()) for k in left & right)
    assert shared < 0.05 * maps.numel()


def test_nothing_is_read_back_to_the_host():
    images = torch.rand(2, 3, 32, 32)
    exported = torch.export.export(_Slic(), (images,)).module()  # a value read back breaks the graph
    assert torch.equal(exported(images), slic(images, 9))


class _Slic(torch.nn.Module):
    def forward(self, images):
        return slic(images, 9)


def test_normalisation_is_undone():
    rgb = torch.rand(2, 3, 8, 8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    torch.testing.assert_close(to_unit_range((rgb - mean) / std), rgb)


@pytest.mark.parametrize("change", [{"tokens": 0}, {"tokens": 300}, {"reduce": 5}, {"iterations": 0}])
def test_wrong_settings_are_named(change):
    with pytest.raises(ValueError, match=r"slic takes|tokens is"):
        slic(torch.rand(1, 3, 32, 32), **{"tokens": 4, **change})


@pytest.mark.soak
def test_quality_on_photos_is_that_of_fast_slic():
    from pipeline.bench_superpixels import _direct, _enlarge, _load
    from pipeline.quality import measure
    from pipeline.superpixels import SuperpixelConfig

    folder = Path(os.environ.get("FOCUSVIT_DATA", "")) / "bsds500" / "val"
    if not folder.is_dir():
        pytest.skip("FOCUSVIT_DATA holds no bsds500/val")
    other = _direct(SuperpixelConfig())
    scores = []
    for photo in _load(folder, 30):
        height, width = (side // 2 * 2 for side in photo.small.shape[:2])
        small = np.ascontiguousarray(photo.small[:height, :width])
        own = slic(torch.from_numpy(small).permute(2, 0, 1)[None], 64)[0].numpy()
        pair = [_enlarge(m, photo.rgb.shape[:2]) for m in (own, other(photo.small, 64))]
        scores.append([measure(m, photo.rgb, photo.truths).achievable_accuracy for m in pair])
    own_score, other_score = np.mean(scores, axis=0)
    print(f"ASA at K = 64, {len(scores)} photos: torch {own_score:.4f}, fast-slic {other_score:.4f}")
    assert own_score >= other_score - 0.01
