"""Features to pixels: loops over regions, gradients, and shapes that do not belong together."""

import pytest
import torch

import focusvit

GENERATOR = torch.Generator().manual_seed(0)
MAPS = torch.randint(0, 5, (2, 8, 12), generator=GENERATOR)


def test_unpool_paints_every_pixel_with_its_region():
    tokens = torch.randn(2, 5, 3, generator=GENERATOR)
    found = focusvit.unpool(tokens, MAPS)
    assert found.shape == (2, 3, 8, 12)
    for image in range(2):
        for y in range(8):
            for x in range(12):
                assert torch.equal(found[image, :, y, x], tokens[image, MAPS[image, y, x]])


def test_the_readout_is_the_mean_over_the_pixels_of_a_region():
    features = torch.randn(2, 3, 4, 6, generator=GENERATOR)
    found = focusvit.superpixel_readout(features, MAPS, 5)
    painted = features.repeat_interleave(2, 2).repeat_interleave(2, 3)
    for image in range(2):
        for region in range(5):
            inside = MAPS[image] == region
            mean = painted[image][:, inside].mean(1)
            torch.testing.assert_close(found[image][:, inside], mean[:, None].expand(-1, int(inside.sum())))
    square = torch.randn(2, 16, 3, generator=GENERATOR)
    rows = focusvit.superpixel_readout(square, MAPS[:, :, :8], 5)
    grid = square.transpose(1, 2).view(2, 3, 4, 4)
    torch.testing.assert_close(rows, focusvit.superpixel_readout(grid, MAPS[:, :, :8], 5))


def test_gradients_flow_back_by_area():
    features = torch.randn(2, 3, 4, 6, generator=GENERATOR, requires_grad=True)
    focusvit.superpixel_readout(features, MAPS, 5).sum().backward()
    torch.testing.assert_close(features.grad, torch.full_like(features, 4.0))  # each patch holds four pixels


def test_shapes_that_do_not_belong_together_are_named():
    with pytest.raises(ValueError, match="without class token"):
        focusvit.superpixel_readout(torch.zeros(2, 17, 3), MAPS, 5)
    with pytest.raises(ValueError, match="multiples of the patch grid"):
        focusvit.superpixel_readout(torch.zeros(2, 3, 5, 5), MAPS, 5)
    with pytest.raises(ValueError, match="must be"):
        focusvit.unpool(torch.zeros(3, 5, 2), MAPS)


def test_a_linear_head_may_come_before_painting():
    features, head = torch.randn(2, 3, 2, 3, generator=torch.Generator().manual_seed(3)), torch.nn.Linear(3, 4)
    scores = focusvit.unpool(head(focusvit.superpixel_means(features, MAPS, 5)), MAPS)
    wanted = head(focusvit.superpixel_readout(features, MAPS, 5).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(scores, wanted)
