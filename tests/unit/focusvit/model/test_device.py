"""The model, its superpixels and its latents on a device: nothing comes from the host, nothing is lost to autocast."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from focusvit.drop_in import pooling
from focusvit.model.latents import pooled_regions
from focusvit.model.model import FocusViT
from focusvit.model.partitions import grid_cells
from focusvit.model.regions import measure_regions
from focusvit.segment.slic import slic
from testkit import model_reference as reference


class _OnlyThere(TorchDispatchMode):
    """Every tensor of every operation lies on the device without data."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, out)):
            assert not isinstance(tensor, torch.Tensor) or tensor.device.type == "meta", func
        return out


class _NoneFromNumbers(TorchFunctionMode):
    """Nothing makes a tensor of numbers of the host: a GPU gets it by a copy that waits for all work before it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", [*reference.VARIANTS, *reference.CONTROL_VARIANTS])
def test_forward_and_backward_send_nothing_from_the_host(name: str) -> None:
    config = reference.tiny_config(**{**reference.VARIANTS, **reference.CONTROL_VARIANTS}[name])
    model = FocusViT(config).to("meta").train()
    inputs = {key: value.to("meta") for key, value in reference.inputs(config).items()}
    with _OnlyThere(), _NoneFromNumbers():
        model(**inputs).sum().backward()


def test_what_comes_from_the_host_is_caught() -> None:
    there = torch.zeros(3, device="meta")
    for from_host in (lambda: torch.tensor([1.0]), lambda: torch.zeros(3), lambda: there + torch.ones(())):
        with pytest.raises(AssertionError), _OnlyThere(), _NoneFromNumbers():
            from_host()


@pytest.mark.parametrize(
    "read", [lambda x: x.sum().item(), lambda x: x.cpu(), lambda x: x.nonzero(), lambda x: x[x > 0]]
)
def test_what_the_host_reads_or_whose_shape_depends_on_values_is_caught(read: Any) -> None:
    """Neither fits in a CUDA graph."""
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), _OnlyThere(), _NoneFromNumbers():
        read(torch.ones(3, device="meta"))


def test_the_latents_of_a_patched_model_are_made_where_its_tokens_are() -> None:
    for num, height, width in ((1, 3, 5), (9, 14, 14), (7, 4, 6), (24, 4, 6), (5, 1, 9), (10, 3, 7), (13, 16, 2)):
        assert np.array_equal(
            pooling.cells_on(torch.device("cpu"), num, height, width).numpy(), grid_cells(num, height, width)
        )
    overlap = torch.zeros(2, 7, 24, device="meta")
    with _OnlyThere(), _NoneFromNumbers():
        assert pooling.grid_cells(overlap, (4, 6), 5)[0].shape == (2, 5, 7)


def test_superpixels_are_the_same_under_autocast() -> None:
    images = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(slic(images, 16), slic(images.clone(), 16))
        under = slic(images, 16)
    assert torch.equal(under, slic(images, 16))


def test_the_places_of_latents_are_exact_under_autocast() -> None:
    maps = torch.from_numpy(grid_cells(64, 32, 32))[None]
    regions = measure_regions(maps, 64)
    weights = torch.softmax(10 * torch.randn(1, 16, 64, generator=torch.Generator().manual_seed(0)), -1)
    with torch.autocast("cpu", torch.bfloat16):
        under = pooled_regions(weights, regions)
    for one, other in zip(under, pooled_regions(weights, regions), strict=True):
        assert torch.equal(one, other)


def test_a_partition_met_at_inference_can_be_trained_with() -> None:
    config = reference.tiny_config(partition="grid", trunk="latent", tokens=7)
    model, images = FocusViT(config), reference.images(2, config)
    with torch.inference_mode():
        model.eval()(images, num_tokens=11)
    model.train()(images, num_tokens=11).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.blocks.parameters())
