"""SLIC in torch: exactly K regions whatever the image holds, no value read back, as good as fast-slic."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from focusvit.model.partitions import grid_cells
from focusvit.segment.cells import layout_on
from focusvit.segment.torch_slic import _assign, to_unit_range, torch_slic


def test_a_compiler_takes_the_cells_as_given():
    assert layout_on._torchdynamo_disable is torch.compiler.disable(lambda: None)._torchdynamo_disable is True


@pytest.mark.parametrize("tokens", [1, 7, 64, 196])
@pytest.mark.parametrize("kind", ["noise", "flat", "halves"])
def test_every_region_is_present(tokens, kind):
    images = torch.full((3, 3, 64, 48), 90, dtype=torch.uint8)
    if kind == "noise":
        images = torch.randint(0, 256, images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    if kind == "halves":
        images[..., 24:] = 255
    maps = torch_slic(images, tokens)
    assert maps.shape == (3, 32, 24)
    for one in maps:
        assert torch.equal(one.unique(), torch.arange(tokens))


def test_an_image_alone_gets_the_map_it_gets_in_a_batch():
    images = torch.rand(10, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    together = torch_slic(images, 16)
    assert torch.equal(torch_slic(images[9:], 16), together[9:])


def test_regions_follow_a_border_that_cells_would_cut():
    image = torch.zeros(1, 3, 64, 64)
    image[..., 26:] = 1.0  # column 13 of 32: cells of 16 regions end at 8, 16 and 24
    maps = torch_slic(image, 16)[0]
    left, right = set(maps[:, :13].flatten().tolist()), set(maps[:, 13:].flatten().tolist())
    shared = sum(int((maps == k).sum()) for k in left & right)
    assert shared < 0.05 * maps.numel()


def test_nothing_is_read_back_to_the_host():
    images = torch.rand(2, 3, 32, 32)
    exported = torch.export.export(_Slic(), (images,)).module()  # a value read back breaks the graph
    assert torch.equal(exported(images), torch_slic(images, 9))


def test_after_the_first_call_nothing_is_sent_from_the_host():
    """On a device without data, with which reading back fails too: every tensor of every operation must lie there."""
    images = torch.rand(3, 3, 32, 32, device="meta")
    torch_slic(to_unit_range(images), 9)
    with _OnlyOn("meta") as seen:
        assert torch_slic(to_unit_range(images), 9).shape == (3, 16, 16)
    assert seen.count > 50


class _OnlyOn(TorchDispatchMode):
    def __init__(self, device):
        super().__init__()
        self.device, self.count = device, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, torch.Tensor)]:
            assert tensor.device.type == self.device, func
        self.count += 1
        return out


class _Slic(torch.nn.Module):
    def forward(self, images):
        return torch_slic(images, 9)


def test_normalisation_is_undone():
    rgb = torch.rand(2, 3, 8, 8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    torch.testing.assert_close(to_unit_range((rgb - mean) / std), rgb)


@pytest.mark.parametrize("change", [{"tokens": 0}, {"tokens": 300}, {"reduce": 5}, {"iterations": 0}])
def test_wrong_settings_are_named(change):
    with pytest.raises(ValueError, match=r"slic takes|tokens is"):
        torch_slic(torch.rand(1, 3, 32, 32), **{"tokens": 4, **change})


@pytest.mark.soak
def test_quality_on_photos_is_that_of_fast_slic():
    from tests.benchmarks.model.slic import BenchSlicConfig, quality_table
    from tests.benchmarks.pipeline.superpixels import load_photos

    folder = Path(os.environ.get("FOCUSVIT_DATA", "")) / "bsds500" / "val"
    if not folder.is_dir():
        pytest.skip("FOCUSVIT_DATA holds no bsds500/val")
    table = quality_table(BenchSlicConfig(tokens=(49, 196)), list(load_photos(folder, 30)))
    print(table.markdown())
    for tokens in (49, 196):
        own, other = (next(float(r[2]) for r in table.rows if r[:2] == [tokens, way]) for way in ("torch", "fast-slic"))
        assert own >= other - 0.01


def test_more_iterations_and_any_shape_keep_every_region():
    for height, width, tokens in ((30, 62, 13), (64, 20, 50), (8, 8, 16)):
        images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(2))
        for iterations in (1, 4):
            for one in torch_slic(images, tokens, iterations=iterations):
                assert torch.equal(one.unique(), torch.arange(tokens))


def test_a_pixel_takes_the_nearest_centre_of_its_cell_and_the_cells_around():
    """One round from the cells' means, written out pixel by pixel."""
    generator = torch.Generator().manual_seed(3)
    features, tokens, height, width = torch.rand(1, 5, 12 * 10, generator=generator), 6, 12, 10
    found = _assign(features, layout_on(features.device, tokens, height, width), 1)[0].view(height, width)
    cells = grid_cells(tokens, height, width)
    points = features[0].T.view(height, width, 5)
    means = torch.stack([points[torch.from_numpy(cells == k)].mean(0) for k in range(tokens)])
    wrong = 0
    for y in range(height):
        for x in range(width):
            touching = {int(cells[y, x])}
            ys, xs = np.nonzero(cells == cells[y, x])
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    inside = (ys + dy >= 0) & (ys + dy < height) & (xs + dx >= 0) & (xs + dx < width)
                    touching |= set(cells[ys[inside] + dy, xs[inside] + dx].tolist())
            nearest = min(touching, key=lambda k: float((points[y, x] - means[k]).square().sum()))
            wrong += int(found[y, x]) != nearest
    assert wrong <= tokens  # pinned pixels, one a region at most
