"""The plain ViT inside FocusViT: equal to a ViT written without modules, and the limit of one region per patch."""

import pytest
import torch

from focusvit.model.model import FocusViT
from testkit import model_reference as reference


def plain(**values: object) -> FocusViT:
    torch.manual_seed(0)
    return reference.shaken(FocusViT(reference.tiny_config(**{**reference.CONTROL_VARIANTS["plain"], **values}))).eval()


def test_a_plain_vit_is_a_vit() -> None:
    model = plain().double()
    images = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    expected = [reference.vit_reference(model.state_dict(), model.config, image) for image in images]
    torch.testing.assert_close(model(images), torch.stack(expected), rtol=0, atol=1e-9)


@pytest.mark.parametrize("grid_depth", [0, 2, 4])
@pytest.mark.parametrize("pooling", ["mean", "max", "mean_std", "attention"])
@pytest.mark.parametrize("position", ["pooled", "both", "descriptor"])
@pytest.mark.parametrize("stem", ["linear", "conv"])
def test_one_region_per_patch_is_the_plain_vit(stem: str, position: str, pooling: str, grid_depth: int) -> None:
    """Any weights, trained ones too: with every patch its own region, the pooled model gives the plain one's logits."""
    vit = plain(position=position, stem=stem, grid_depth=grid_depth)
    torch.manual_seed(1)
    config = reference.tiny_config(
        stem=stem, position=position, pooling=pooling, grid_depth=grid_depth, tokens=24, area_bias=True
    )
    pooled = reference.shaken(FocusViT(config)).eval()
    missing = pooled.load_state_dict(vit.state_dict(), strict=False)
    assert not missing.unexpected_keys
    assert all(key.startswith("pool.") for key in missing.missing_keys)
    images = reference.images(2, config)
    maps = reference.patch_map(config, scale=2).expand(2, -1, -1)
    tolerance = 0 if position == "pooled" and pooling == "mean" else 2e-5
    torch.testing.assert_close(pooled(images, maps), vit(images), rtol=0, atol=tolerance)


def test_grid_cells_equal_to_the_patches_are_the_plain_vit() -> None:
    vit = plain()
    config = reference.tiny_config(stem="linear", position="pooled", pooling="mean", partition="grid", tokens=24)
    pooled = FocusViT(config).eval()
    pooled.load_state_dict(vit.state_dict())
    images = reference.images(2, config)
    torch.testing.assert_close(pooled(images), vit(images), rtol=0, atol=2e-5)


def test_merging_nothing_is_the_plain_vit() -> None:
    vit = plain()
    config = reference.tiny_config(**{**reference.CONTROL_VARIANTS["plain"], "partition": "merge", "tokens": 24})
    merging = FocusViT(config).eval()
    merging.load_state_dict(vit.state_dict())
    images = reference.images(2, config)
    torch.testing.assert_close(merging(images), vit(images), rtol=0, atol=2e-5)
