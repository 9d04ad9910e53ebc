"""Costs: counted, not estimated from ratios."""

import gc
from dataclasses import asdict, replace
from typing import Literal

import pytest
import torch
from torch import nn

from focusvit.model import slices
from focusvit.model.cost import (
    count_multiply_adds,
    example_inputs,
    held_bytes,
    inference_peak,
    peak_bytes,
    profile_models,
    time_calls,
)
from focusvit.model.model import FocusViT
from focusvit.model.presets import focusvit, focusvit_64px, plain_vit_of, vit
from testkit import model_reference as reference


def vit_multiply_adds(tokens: int, width: int, depth: int, patch_values: int, patches: int, classes: int) -> int:
    """The textbook sum: patch embedding, 12 n D^2 + 2 n^2 D a block, head."""
    block = 12 * tokens * width**2 + 2 * tokens**2 * width
    return patches * patch_values * width + depth * block + width * classes


def test_a_vits_multiply_adds_are_the_textbook_sum() -> None:
    config = vit("small", depth=2)
    inputs = example_inputs(config, 1)
    expected = vit_multiply_adds(197, 384, 2, 768, 196, 1000)
    assert count_multiply_adds(FocusViT(config), *inputs) == expected


def test_pooling_lowers_the_count_by_what_the_tokens_save() -> None:
    config = focusvit("small", depth=2, grid_depth=0, stem="linear", pooling="mean", position="pooled", tokens=49)
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


def plain_vit() -> nn.Module:
    """A model of another library, in as few words: the peak is its hidden layer, which nothing cuts by itself."""
    hidden = (nn.Linear(64, 512), nn.GELU(), nn.Linear(512, 8))
    return nn.Sequential(nn.Flatten(2), *hidden, nn.Flatten(1), nn.Linear(24, 5))


@pytest.mark.parametrize("name", ["default", "latent", "hybrid", "plain", "merge_class", "random_cells"])
def test_both_models_are_measured_whole_and_both_in_slices(name: str) -> None:
    """A FocusViT of any variant and a model that cuts nothing: a quarter of the batch at a time needs less of each, and
    the whole is the whole, whatever the model does by itself.
    """
    config = reference.tiny_config(**{**reference.VARIANTS, **reference.CONTROL_VARIANTS}[name])
    other = torch.randn(64, 3, 8, 8)
    for model, inputs in ((FocusViT(config), example_inputs(config, 64)), (plain_vit(), (other,))):
        held = held_bytes(model, *inputs)
        whole = inference_peak(model, *inputs) - held
        sliced = inference_peak(model, *inputs, images_at_once=16) - held
        assert 0.2 * whole < sliced < 0.4 * whole
        assert inference_peak(model, *inputs, images_at_once=1000) - held == whole


def test_a_cpu_cuts_the_batch_by_itself_and_a_setting_overrides_it() -> None:
    model = FocusViT(reference.tiny_config()).eval()
    sizes: list[int] = []
    noted = model.norm.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    images, maps = example_inputs(model.config, 40)
    with torch.no_grad():
        for setting, expected in ((None, [13, 13, 14]), (40, [40]), (25, [20, 20])):
            model.images_at_once = setting
            model(images, maps)
            assert sizes == expected
            sizes.clear()
    model(images, maps)  # gradients are kept: all at once
    assert sizes == [40]
    noted.remove()
    model.images_at_once = None
    with torch.no_grad():
        program = torch.export.export(model, (images, maps), strict=False)
    assert sum("aten.conv2d" in str(node.target) for node in program.graph.nodes) == 3  # one stem: a graph is whole


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_captured_graph_takes_batches_of_other_sizes() -> None:
    """No slice of the example's batch stays in what is traced or exported."""
    focus = focusvit_64px(depth=2)
    for config in (focus, replace(focus, partition="grid"), plain_vit_of(focus)):
        model = FocusViT(config).eval()
        model.images_at_once = 7  # a setting does not stay in a graph, either
        shown, asked = (tuple(x for x in example_inputs(config, batch) if x is not None) for batch in (40, 50))
        batch = torch.export.Dim("batch", min=2, max=64)
        with torch.no_grad():
            traced = torch.jit.trace(model, shown, check_trace=False)
            exported = torch.export.export(
                model, shown, dynamic_shapes=tuple({0: batch} for _ in shown), strict=False
            ).module()
            for captured in (traced, exported):
                torch.testing.assert_close(captured(*asked), model(*asked), rtol=1e-4, atol=1e-5)


def test_the_trunk_runs_without_what_only_the_way_to_tokens_needs() -> None:
    """Patches, their own encodings and overlaps are gone when the first block behind the pooling begins."""
    model = FocusViT(focusvit_64px(depth=3, grid_depth=0, tokens=16, num_classes=10)).eval()
    images, maps = example_inputs(model.config, 5)
    num_patches, left = model.config.num_patches, list[torch.Size]()
    gc.collect()
    before = {id(x) for x in gc.get_objects()}  # of other tests

    def look(*_: object) -> None:
        new = [x.shape for x in gc.get_objects() if type(x) is torch.Tensor and id(x) not in before]
        left.extend(shape for shape in new if len(shape) == 3 and shape[0] == 5 and num_patches in shape[1:])

    model.blocks[0].register_forward_pre_hook(look)
    with torch.no_grad():
        model(images, maps)
    assert left == []


def test_the_stem_runs_in_slices_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of few pixels, but of four images at least; what comes out stays the same."""
    model = FocusViT(reference.tiny_config()).eval()
    images, maps = example_inputs(model.config, 12)
    whole, sizes = model(images, maps), list[int]()
    model.patch_embed.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    model.images_at_once = 12
    for pixels, expected in ((2**16, [12]), (6 * images[0, 0].numel(), [6, 6]), (1, [4, 4, 4])):
        monkeypatch.setattr(slices, "STEM_PIXELS", pixels)
        sizes.clear()
        with torch.no_grad():
            torch.testing.assert_close(model(images, maps), whole)
        assert sizes == expected
    sizes.clear()
    model(images, maps)  # gradients are kept
    assert sizes == [12]


@pytest.mark.parametrize("stem", ["linear", "conv"])
def test_pooling_early_needs_57_percent_of_the_memory_of_a_plain_vit(stem: Literal["linear", "conv"]) -> None:
    """Whole batches, stems of both cut alike: whole, the convolutional one would need more than the plain ViT."""
    model = focusvit_64px(tokens=16, width=128, heads=4, num_classes=10)
    early, plain = (
        inference_peak(FocusViT(config), *example_inputs(config, 64), images_at_once=64)
        for config in (replace(model, stem=stem, grid_depth=0), plain_vit_of(model))
    )
    assert early <= 0.57 * plain


def test_calls_take_turns() -> None:
    order: list[str] = []
    seconds = time_calls({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2)
    assert order == ["a", "b"] * 3
    assert [len(values) for values in seconds.values()] == [2, 2]


def test_a_profile_holds_every_cost() -> None:
    configs = {name: reference.tiny_config(**reference.VARIANTS[name]) for name in ("default", "latent")}
    found = profile_models(configs, batch=32, rounds=1)
    for name, config in configs.items():
        row, model = found[name], FocusViT(config)
        assert all(value > 0 for value in asdict(row).values())
        assert row.parameters == sum(p.numel() for p in model.parameters())
        assert row.multiply_adds == count_multiply_adds(model, *example_inputs(config, 1))
        assert row.images_per_s == pytest.approx(32 / row.latency_s)
        assert row.training_peak_bytes > row.inference_peak_bytes > row.sliced_peak_bytes > row.weights_bytes


def test_models_are_timed_in_turns_by_the_clock_given_and_frozen_parts_are_counted() -> None:
    configs = {"a": reference.tiny_config(), "b": reference.tiny_config(depth=1)}
    ticks = iter([9.0, 9.0, 0.0, 1.0, 0.0, 2.0])  # the first round of both is not counted
    found = profile_models(configs, batch=4, rounds=1, frozen=("blocks",), clock=lambda: next(ticks))
    assert (found["a"].latency_s, found["a"].images_per_s, found["b"].latency_s) == (1.0, 4.0, 2.0)
    blocks = sum(p.numel() for name, p in FocusViT(configs["a"]).named_parameters() if name.startswith("blocks."))
    assert blocks > 0 and found["a"].trainable_parameters == found["a"].parameters - blocks
