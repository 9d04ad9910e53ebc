"""Superpixel pooling against loops over regions."""

import numpy as np
import pytest
import torch

from focusvit.model.pooling import SuperpixelPooling
from focusvit.model.regions import measure_regions, overlap_matrix
from testkit import model_reference as reference

MODES = ("mean", "max", "mean_std", "attention")


def make(mode: str, overlap: str = "soft", *, shake: bool = True) -> SuperpixelPooling:
    torch.manual_seed(0)
    pooling = SuperpixelPooling(reference.tiny_config(pooling=mode, overlap=overlap)).double()
    return reference.shaken(pooling) if shake else pooling


def inputs(num_tokens: int, scale: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    config = reference.tiny_config()
    maps = reference.maps(2, config, num_tokens, scale=scale)
    patches = torch.randn(2, 24, 16, generator=torch.Generator().manual_seed(2)).double()
    return patches, overlap_matrix(maps, config.grid, num_tokens), measure_regions(maps, num_tokens).centre


@pytest.mark.parametrize("num_tokens", [1, 7, 24, 90])
@pytest.mark.parametrize("overlap", ["soft", "hard"])
@pytest.mark.parametrize("mode", MODES)
def test_pooling_equals_a_loop_over_regions(mode: str, overlap: str, num_tokens: int) -> None:
    pooling = make(mode, overlap)
    patches, shares, centre = inputs(num_tokens)
    membership = pooling.membership(shares, centre)
    tokens = pooling(patches, membership).detach().numpy()
    assert np.isfinite(tokens).all()
    for b in range(2):
        x, w = patches[b].numpy(), membership[b].double().numpy()
        if mode == "mean_std":
            std = reference.pool_loop(x, w, "std") @ pooling.std_proj.weight.detach().numpy().T
            expected = reference.pool_loop(x, w, "mean") + std
        elif mode == "attention":
            score = pooling.saliency(pooling.norm(patches[b])).squeeze(-1)
            expected = reference.pool_loop(x, w, mode, (5 * torch.tanh(score / 5)).detach().numpy())
        else:
            expected = reference.pool_loop(x, w, mode)
        np.testing.assert_allclose(tokens[b], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["mean_std", "attention"])
def test_what_is_learned_starts_as_the_mean(mode: str) -> None:
    pooling = make(mode, shake=False)
    pooling.reset_start()
    patches, shares, _ = inputs(7)
    torch.testing.assert_close(pooling(patches, shares), make("mean")(patches, shares))


@pytest.mark.parametrize("mode", MODES)
def test_one_region_per_patch_returns_the_patches(mode: str) -> None:
    config = reference.tiny_config()
    patches, _, _ = inputs(7)
    shares = overlap_matrix(reference.patch_map(config, scale=4), config.grid, 24)
    for overlap in ("soft", "hard"):
        pooling = make(mode, overlap)
        exact = pooling(patches, pooling.membership(shares, torch.zeros(1, 24, 2)))
        torch.testing.assert_close(exact, patches, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_a_constant_image_gives_the_constant(mode: str) -> None:
    patches = torch.full((2, 24, 16), 3.0, dtype=torch.float64)
    tokens = make(mode)(patches, inputs(7)[1])
    torch.testing.assert_close(tokens, torch.full((2, 7, 16), 3.0, dtype=torch.float64), rtol=0, atol=2e-3)


@pytest.mark.parametrize("mode", MODES)
def test_an_empty_region_is_zero_and_its_gradient_finite(mode: str) -> None:
    patches, shares, centre = inputs(7)
    shares[:, 3] = 0
    patches.requires_grad_(True)
    pooling = make(mode, "hard")
    tokens = pooling(patches, pooling.membership(shares, centre))
    assert (tokens[:, 3] == 0).all()
    tokens.square().sum().backward()
    assert patches.grad is not None and patches.grad.isfinite().all()


@pytest.mark.parametrize("mode", MODES)
def test_gradients(mode: str) -> None:
    pooling = make(mode)
    patches, shares, _ = inputs(5)
    patches = patches[:, :, :16].requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: pooling(x, shares), (patches,), fast_mode=True)


def test_std_survives_bfloat16_autocast() -> None:
    """A large common offset would swallow the variance in bfloat16."""
    pooling = make("mean_std").float()
    patches, shares, _ = inputs(7)
    patches = patches.float() + 30
    expected = pooling(patches, shares) - make("mean").float()(patches, shares)
    with torch.autocast("cpu", torch.bfloat16):
        found = pooling(patches, shares)
        mean = make("mean").float()(patches, shares)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close((found.float() - mean.float()), expected, rtol=0.1, atol=0.3)
