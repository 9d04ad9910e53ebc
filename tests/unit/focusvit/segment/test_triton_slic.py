"""SLIC's Triton kernels beside the torch form, by Triton's interpreter on a CPU: `make triton`.

What is the same bits: everything that is exact in float32 (whole numbers, means over 2^n pixels), ties and pinned
pixels included. What is not: sums in another order, and powers. There a pixel may differ from the torch form where its
two centres are equally far up to rounding.
"""

import os

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed: `make triton` installs it and runs these tests")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs Triton's interpreter: `make triton` runs these tests", allow_module_level=True)

from focusvit.model.partitions import grid_cells
from focusvit.segment import triton_slic as kernels
from focusvit.segment.cells import layout_on, spacing
from focusvit.segment.torch_slic import _assign, _features, _lab, _reduced, _smooth, torch_slic
from focusvit.segment.triton_slic import assigned, lab_by_cell, triton_slic

CPU = torch.device("cpu")


def _scenes(batch, height, width, dtype, seed=0):
    """Smooth drawn images: noise has no regions."""
    generator = torch.Generator().manual_seed(seed)
    unit = torch.nn.functional.avg_pool2d(torch.rand(batch, 3, height, width, generator=generator), 5, 1, 2)
    unit = (unit - unit.amin()) / (unit.amax() - unit.amin())
    return (unit * 255).round().to(torch.uint8) if dtype == torch.uint8 else unit.to(dtype)


def _start_cells(tokens, height, width):
    return torch.from_numpy(grid_cells(tokens, height, width)).long().flatten()


@pytest.mark.parametrize(
    ("batch", "height", "width", "tokens", "dtype", "reduce"),
    [
        (2, 22, 30, 6, torch.uint8, 2),
        (3, 26, 18, 7, torch.float32, 2),
        (2, 9, 14, 3, torch.bfloat16, 1),
        (2, 33, 21, 13, torch.uint8, 3),
        (2, 20, 20, 1, torch.float16, 2),
    ],
)
def test_labels_are_those_of_the_torch_form(batch, height, width, tokens, dtype, reduce):
    images = _scenes(batch, height, width, dtype)
    for iterations in (1, 3):
        ours = triton_slic(images, tokens, iterations=iterations, reduce=reduce)
        wanted = torch_slic(images, tokens, iterations=iterations, reduce=reduce)
        assert ours.dtype == wanted.dtype == torch.uint8 and ours.shape == wanted.shape
        assert all(one.unique().tolist() == list(range(tokens)) for one in ours)
        assert (ours != wanted).sum() <= 0.01 * wanted.numel()  # ties, which another processor may round another way
        assert tokens == 1 or (ours.flatten(1) != _start_cells(tokens, *ours.shape[1:])).sum() > 0.05 * ours.numel()


def test_every_round_gives_a_pixel_its_nearest_centre():
    """In float64, from the means of the regions of the round before; but for one pinned pixel a region."""
    images, tokens, size = _scenes(2, 22, 30, torch.uint8), 6, (11, 15)
    points = _features(_smooth(_reduced(images, 2)), 15.0 / spacing(tokens, *size)).double()
    start = _start_cells(tokens, *size)
    far = torch.ones(tokens, tokens, dtype=torch.bool).scatter_(1, layout_on(CPU, tokens, *size).near, False)[start]
    labels = start.expand(2, -1)
    for iterations in (1, 2, 3):
        member = torch.nn.functional.one_hot(labels, tokens).double()
        centres = points @ member / member.sum(1, keepdim=True)
        distance = (points[..., None] - centres[:, :, None]).square().sum(1).masked_fill(far, torch.inf)
        labels = triton_slic(images, tokens, iterations=iterations).flatten(1).long()
        excess = distance.gather(2, labels[..., None])[..., 0] - distance.amin(2)
        assert (excess > 1e-2).sum(1).max() <= tokens


def test_where_sums_are_exact_labels_are_the_same_bits():
    """Whole numbers, cells of 16 pixels and no weight on position: most pixels are equally far from several centres,
    and a cell whose pixels all leave it keeps the first that loses least."""
    tokens, size = 8, (16, 8)
    layout = layout_on(CPU, tokens, *size)
    start, generator = _start_cells(tokens, *size), torch.Generator().manual_seed(2)
    spread = torch.tensor([0.0, 1, -1, 0] * 4)  # around the cell's mean, which stays
    means = 2.0 * torch.randint(0, 3, (3, 3, tokens), generator=generator)
    by_cell = means.transpose(1, 2)[..., None] + spread[torch.randperm(16, generator=generator)]  # (B, K, 3, m)
    by_cell[0, :3] = torch.tensor([2.0, 6.0, 4.0])[:, None, None]
    by_cell[0, 2] += torch.tensor([2.0, -2.0] * 8)  # all of it is nearer to its neighbours' 2 and 6
    features = torch.zeros(3, 5, 16 * tokens)
    features[:, :3, layout.order] = by_cell.transpose(1, 2).flatten(2)
    ours = assigned(by_cell.contiguous(), layout, 0.0, 1, size).flatten(1).long()
    assert torch.equal(ours, _assign(features, layout, 1))
    centres = by_cell.mean(3).transpose(1, 2)
    distance = (features[:, :3, :, None] - centres[:, :, None]).square().sum(1)
    assert ((distance == distance.amin(2, keepdim=True)).sum(2) > 1).sum() > 100  # ties there are
    assert (ours != start).sum() > 10
    assert (
        layout.near[2].tolist().count(0) and layout.near[2].tolist().count(1) and (ours[0][start == 2] == 2).sum() == 1
    )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_colours_are_those_of_the_torch_form(dtype):
    images = _scenes(2, 12, 20, dtype, seed=3)
    images[0, :, :6] = 0
    images[1, :, :, 8:] = 1 if dtype.is_floating_point else 255
    layout = layout_on(CPU, 4, 6, 10)
    wanted = _lab(_smooth(_reduced(images, 2))).flatten(2)[:, :, layout.order].view(2, 3, 4, -1).transpose(1, 2)
    ours, there = lab_by_cell(images, layout, 2), layout.valid.view(4, 1, -1).expand(2, -1, 3, -1) > 0
    torch.testing.assert_close(ours[there], wanted[there], rtol=0, atol=5e-4)


def test_strides_of_the_images_do_not_matter():
    whole = _scenes(2, 20, 28, torch.float32)
    wanted = triton_slic(whole[..., 2:14, 4:20].contiguous(), 4, iterations=1)
    assert torch.equal(triton_slic(whole[..., 2:14, 4:20], 4, iterations=1), wanted)
    last = whole.to(memory_format=torch.channels_last)[..., 2:14, 4:20]
    assert torch.equal(triton_slic(last, 4, iterations=1), wanted)


def test_an_image_alone_gets_the_map_it_gets_in_a_batch():
    images = _scenes(3, 16, 16, torch.uint8)
    assert torch.equal(triton_slic(images[2:], 4, iterations=2), triton_slic(images, 4, iterations=2)[2:])


@pytest.mark.parametrize("value", [0.3, float("nan")])
def test_every_region_is_present_whatever_the_image_holds(value):
    maps = triton_slic(torch.full((1, 3, 16, 24), value), 6, iterations=2)
    assert maps.unique().tolist() == list(range(6))


def test_ids_that_need_more_than_a_byte(monkeypatch):
    images = _scenes(1, 12, 12, torch.uint8)
    wanted = triton_slic(images, 3, iterations=1)
    monkeypatch.setattr(kernels, "map_dtype", lambda tokens: torch.int32)
    found = triton_slic(images, 3, iterations=1)
    assert found.dtype == torch.int32 and torch.equal(found, wanted.int())


def test_a_cell_that_no_program_holds_is_refused(monkeypatch):
    monkeypatch.setattr(kernels, "LARGEST_CELL_PX", 35)
    with pytest.raises(NotImplementedError, match="1 regions of a map of 6x6 pixels"):
        triton_slic(torch.rand(1, 3, 12, 12), 1)
