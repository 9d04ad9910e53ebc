"""Costs: counted, not estimated from ratios."""

import pytest
import torch
from torch import nn

from focusvit.model.cost import as_row, count_multiply_adds, example_inputs, peak_bytes, profile_model, time_calls
from focusvit.model.model import FocusViT
from focusvit.model.presets import focusvit_small, vit_small
from testkit import model_reference as reference


def vit_multiply_adds(tokens: int, width: int, depth: int, patch_values: int, patches: int, classes: int) -> int:
    """The textbook sum: patch embedding, 12 n D^2 + 2 n^2 D a block, head."""
    block = 12 * tokens * width**2 + 2 * tokens**2 * width
    return patches * patch_values * width + depth * block + width * classes


def test_a_vits_multiply_adds_are_the_textbook_sum() -> None:
    config = vit_small(depth=2)
    inputs = example_inputs(config, 1)
    expected = vit_multiply_adds(197, 384, 2, 768, 196, 1000)
    assert count_multiply_adds(FocusViT(config), *inputs) == expected


def test_pooling_lowers_the_count_by_what_the_tokens_save() -> None:
    config = focusvit_small(depth=2, grid_depth=0, stem="linear", pooling="mean", position="pooled", tokens=49)
    counted = count_multiply_adds(FocusViT(config), *example_inputs(config, 1))
    pooling = 49 * 196 * 384
    assert counted == vit_multiply_adds(50, 384, 2, 768, 196, 1000) + pooling


def test_peak_bytes_of_a_known_computation() -> None:
    layers = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))
    x = torch.randn(500, 64)

    def step() -> None:
        with torch.no_grad():
            layers(x)

    step()
    assert peak_bytes(step) == 2 * 500 * 256 * 4  # the hidden layer before and after GELU


@pytest.mark.parametrize(
    "values",
    [
        {"grid_depth": 2},
        {"trunk": "hybrid", "token_depth": 2, "tokens": None, "grid_depth": 0, "num_reads": 1},
        {"trunk": "latent", "tokens": None},
    ],
)
def test_what_shrinks_bounds_the_peak_at_inference(values: dict[str, object]) -> None:
    """Stem, grid blocks and token blocks before latents in slices: 8 slices need less memory than one."""
    peaks = []
    for slices in (1, 8):
        config = reference.tiny_config(**{"image_px": 64, "micro_batches": slices, **values})
        model = FocusViT(config).eval()
        images, maps = example_inputs(config, 64)

        def step(model: FocusViT = model, images: torch.Tensor = images, maps: torch.Tensor | None = maps) -> None:
            with torch.no_grad():
                model(images, maps)

        step()
        peaks.append(peak_bytes(step))
    assert peaks[1] < 0.5 * peaks[0]


def test_calls_take_turns() -> None:
    order: list[str] = []
    seconds = time_calls({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2)
    assert order == ["a", "b"] * 3
    assert [len(values) for values in seconds.values()] == [2, 2]


@pytest.mark.parametrize("name", ["default", "latent"])
def test_a_profile_holds_every_cost(name: str) -> None:
    row = as_row(profile_model(reference.tiny_config(**reference.VARIANTS[name]), batch=2, rounds=1))
    assert all(value > 0 for value in row.values())
    assert row["training_peak_bytes"] > row["inference_peak_bytes"] > row["weights_bytes"]
