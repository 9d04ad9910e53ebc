"""`focusvit.patch` on one host of each library: maps and segmenters, latents, feature maps, and everything refused."""

import pytest
import torch
from torch import nn

import focusvit
from focusvit.drop_in.patch import Patch
from focusvit.drop_in.pooling import from_maps, grid_cells
from focusvit.model import partitions
from focusvit.model.regions import overlap_matrix
from testkit.hosts import GRID, SIDE, answer, hugging_face, make, stand_in, timm_model

PIXELS = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
ONE_EACH = torch.arange(GRID * GRID).view(1, GRID, GRID).expand(2, -1, -1)
QUARTERS = (torch.arange(8)[:, None] // 4 * 2 + torch.arange(8) // 4).expand(2, -1, -1)
HOSTS = ["ViTForImageClassification", "CLIPVisionModel", "timm vit", "torchvision", "torchvision's parts"]


@pytest.fixture(params=HOSTS)
def host(request):
    return make(request.param)


@torch.no_grad()
def test_pixels_alone_are_enough_and_given_maps_are_not_kept(host):
    asked = []

    def segmenter(pixels, budgets):
        asked.append((tuple(pixels.shape), budgets))
        return [QUARTERS]

    focusvit.patch(host, tokens=4, depth=1, segmenter=segmenter, merge="colour")
    given = answer(host, PIXELS, maps=QUARTERS)
    assert asked == []
    torch.testing.assert_close(answer(host, PIXELS), given)
    assert asked == [(tuple(PIXELS.shape), (4,))]
    focusvit.patch(focusvit.unpatch(host), tokens=0.25, depth=1, mean=(0.5,) * 3, std=(0.5,) * 3, merge="colour")
    assert answer(host, PIXELS).isfinite().all()
    assert host._focusvit_patch.call.budgets == (4,)  # a quarter of 16 patches


@torch.no_grad()
def test_by_default_half_of_the_patches_are_left_before_the_middle_block_and_nothing_is_asked_for(host):
    before = answer(host, PIXELS)
    focusvit.patch(host)
    found = answer(host, PIXELS)
    state: Patch = host._focusvit_patch
    assert (state.levels, state.call.budgets) == (((2, 0.5),), (8,))
    assert found.shape == before.shape and not torch.allclose(found, before, atol=1e-5)
    focusvit.patch(focusvit.unpatch(host), tokens=8, depth=2, merge="keys")
    assert torch.equal(answer(host, PIXELS), found)


@torch.no_grad()
def test_as_many_latents_as_patches_or_cells_change_nothing_and_fewer_do(host):
    before = answer(host, PIXELS)
    focusvit.patch(host, tokens=16, depth=2, latents=16, merge="colour")
    torch.testing.assert_close(answer(host, PIXELS, maps=ONE_EACH), before, atol=1e-5, rtol=0)
    focusvit.patch(focusvit.unpatch(host), tokens=4, depth=2, merge="colour")
    pooled = answer(host, PIXELS, maps=QUARTERS)
    focusvit.patch(focusvit.unpatch(host), tokens=4, depth=2, latents=4, merge="colour")  # the cells are the quarters
    torch.testing.assert_close(answer(host, PIXELS, maps=QUARTERS), pooled, atol=1e-5, rtol=0)
    torch.testing.assert_close(answer(host, PIXELS, maps=3 - QUARTERS), pooled, atol=1e-5, rtol=0)  # ids mean nothing
    focusvit.patch(focusvit.unpatch(host), tokens=4, depth=2, latents=2, merge="colour")
    light = answer(host, PIXELS, maps=QUARTERS)
    assert light.isfinite().all() and not torch.allclose(light, pooled, atol=1e-6)
    assert torch.equal(answer(focusvit.unpatch(host), PIXELS), before)


def test_latents_are_means_over_the_pixels_of_their_cells():
    maps = torch.randint(0, 5, (2, 12, 12), generator=torch.Generator().manual_seed(0))
    weights, area = grid_cells(overlap_matrix(maps, (6, 6), 5), (6, 6), 7)
    cells = torch.from_numpy(partitions.grid_cells(7, 6, 6))
    torch.testing.assert_close(area, torch.bincount(cells.flatten()).float())
    cells = cells.repeat_interleave(2, 0).repeat_interleave(2, 1)
    for image in range(2):
        for cell in range(7):
            inside = maps[image][cells == cell]
            expected = torch.tensor([float((inside == k).sum()) for k in range(5)]) / len(inside)
            torch.testing.assert_close(weights[image, cell], expected)


def test_levels_equal_loops_over_pixels():
    """Pooling step by step is the mean over the pixels of each region, and so is each step's area."""
    generator = torch.Generator().manual_seed(0)
    fine = torch.randint(0, 6, (2, 8, 8), generator=generator)
    coarse = torch.tensor([0, 1, 1, 2, 0, 2])[fine]
    x = torch.randn(2, 1 + 16, 3, generator=generator)
    first, second = from_maps([fine, coarse], (6, 3), (4, 4))
    tokens = second.pool(first.pool(x))
    assert torch.equal(tokens[:, :1], x[:, :1])
    painted = x[:, 1:].view(2, 4, 4, 3).repeat_interleave(2, 1).repeat_interleave(2, 2)
    for image in range(2):
        for region in range(3):
            inside = painted[image][coarse[image] == region]
            torch.testing.assert_close(tokens[image, 1 + region], inside.mean(0))
            torch.testing.assert_close(second.area[image, region], torch.tensor(len(inside) / 4))
    back = second.unpool(tokens)[:, 1:]
    expected = torch.stack([tokens[i, 1:][coarse[i]] for i in range(2)])
    expected = expected.view(2, 4, 2, 4, 2, 3).mean((2, 4)).flatten(1, 2)
    torch.testing.assert_close(back, expected)


@torch.no_grad()
def test_feature_maps_of_a_backbone_keep_their_shape():
    model = hugging_face("Dinov2Backbone", "Dinov2", out_features=["stage2", "stage4"]).eval()
    before = model(PIXELS).feature_maps
    focusvit.patch(model, tokens=16, depth=1, feature_maps=True, merge="colour")
    for found, wanted in zip(model(PIXELS, maps=ONE_EACH).feature_maps, before):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    focusvit.patch(focusvit.unpatch(model), tokens=4, depth=1, feature_maps=True, merge="colour")
    pooled = model(PIXELS, maps=QUARTERS).feature_maps
    assert [part.shape for part in pooled] == [part.shape for part in before]
    for part in pooled:  # constant on each quarter of the grid
        assert torch.allclose(part[:, :, :2, :2], part[:, :, :1, :1], atol=1e-5)


@torch.no_grad()
def test_feature_maps_change_no_answer(host):
    focusvit.patch(host, tokens=4, depth=1, merge="colour")
    plain = answer(host, PIXELS, maps=QUARTERS)
    focusvit.patch(focusvit.unpatch(host), tokens=4, depth=1, feature_maps=True, merge="colour")
    torch.testing.assert_close(answer(host, PIXELS, maps=QUARTERS), plain, atol=1e-6, rtol=1e-5)


def test_what_cannot_be_patched_is_named_before_any_work():
    for model, why in (
        (nn.Linear(2, 2), "Linear cannot be patched: it has no list of blocks"),
        (hugging_face("BeitModel", "Beit", use_relative_position_bias=True), "a bias for each pair of patches"),
        (hugging_face("ViTMAEModel", "ViTMAE"), "drops patches"),
    ):
        with pytest.raises(TypeError, match=why) as error:
            focusvit.patch(model)
        assert "\n" not in str(error.value)
    model = stand_in()
    for values, why in (
        ({"depth": 4}, "this model has 4 blocks"),
        ({"latents": 0}, "at least 1"),
        ({"tokens": {1: 4, 2: 9}}, "must fall"),
        ({"tokens": {1: 9, 2: 0.2}}, "all numbers or all shares"),
        ({"tokens": 0}, "numbers from 1"),
        ({"tokens": 1.5}, "between 0 and 1"),
        ({"tokens": {1: 9}, "depth": 2}, "leave `depth` out"),
        ({"merge": "size"}, "'keys', 'colour' or a function"),
        ({"mean": (0.5,) * 3, "std": (0.5,) * 3}, "give merge='colour'"),
        ({"segmenter": lambda pixels, budgets: [QUARTERS]}, "give merge='colour'"),
    ):
        with pytest.raises(ValueError, match=why):
            focusvit.patch(model, **values)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_what_a_call_may_not_bring_is_named():
    model = focusvit.patch(stand_in(), tokens=4, merge="colour")
    with pytest.raises(ValueError, match="patched already"):
        focusvit.patch(model)
    for maps, why in (
        (torch.zeros(2, 5, 5, dtype=torch.long), "patch grid"),
        (torch.zeros(3, 4, 4, dtype=torch.long), "2 images at 1 levels"),
        (torch.zeros(2, 4, 4), "must be integers"),
        (ONE_EACH, "holds region 15, and the model is patched for 4"),
        ([QUARTERS, QUARTERS], "one map"),
    ):
        with pytest.raises(ValueError, match=why):
            model(PIXELS, maps=maps)
    with pytest.raises(ValueError, match="give `mean` and `std`"):
        model(PIXELS)
    assert answer(model, PIXELS, maps=QUARTERS).isfinite().all()  # and the next call goes on


def test_latents_are_refused_where_keys_turn():
    model = hugging_face("DINOv3ViTModel", "DINOv3ViT")
    with pytest.raises(TypeError, match="rotates its keys"):
        focusvit.patch(model, latents=4)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_statistics_come_from_the_models_own_record(tmp_path):
    model = hugging_face("ViTModel", "ViT")
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3]}')
    again = focusvit.patch(type(model).from_pretrained(tmp_path), tokens=4, merge="colour")
    state: Patch = again._focusvit_patch
    assert state.segmenter.statistics == ((0.1, 0.2, 0.3), (1, 2, 3))


def test_statistics_of_timm():
    model = focusvit.patch(timm_model("vit_tiny_patch16_224"), tokens=4, merge="colour")
    assert model._focusvit_patch.segmenter.statistics == ((0.5,) * 3, (0.5,) * 3)
