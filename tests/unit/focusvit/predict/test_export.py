"""Exported graphs equal eager torch for every variant, hold no scatter, and 8 bits leave the counting exact."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import onnx
import pytest
import torch

from focusvit.model.model import FocusViT, FocusViTConfig
from focusvit.model.presets import focusvit_64px
from focusvit.predict import export
from focusvit.predict.graph import TOLERANCE, FixedBudget, difference, export_program, to_int8, to_onnx
from focusvit.predict.onnx_predictor import in_batches, inference_session
from pipeline.errors import UsageError
from testkit import model_reference as reference
from testkit.tiny_checkpoint import make_checkpoint

VARIANTS = {**reference.VARIANTS, **reference.CONTROL_VARIANTS}
QUICK = ("default", "hard_max", "gather", "merge")
QUICK_ONNX = ("hybrid",)


def quick(names: Sequence[str]) -> list:
    """Every variant; those beyond `names` only in the soak run."""
    marks = {name: () if name in names else pytest.mark.soak for name in VARIANTS}
    return [pytest.param(name, marks=mark) for name, mark in marks.items()]


def model_and_inputs(name: str, tokens: int = 7) -> tuple[FixedBudget, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    model = reference.shaken(FocusViT(reference.tiny_config(**VARIANTS[name]))).eval()
    return FixedBudget(model, tokens if model.config.tokens else None), inputs_of(model.config, tokens, 0)


def inputs_of(config: FocusViTConfig, tokens: int, seed: int) -> tuple[torch.Tensor, ...]:
    images = reference.images(3, config, seed)
    if not config.needs_maps:
        return (images,)
    return images, reference.maps(3, config, tokens, seed=seed)


@pytest.mark.parametrize("name", quick(QUICK))
def test_torch_export_equals_eager_and_holds_no_scatter(name: str) -> None:
    model, inputs = model_and_inputs(name)
    program = export_program(model, *inputs)
    kinds = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not [kind for kind in kinds if "scatter" in kind or "index_put" in kind or "index_add" in kind]
    run = program.module()
    for given in (inputs, inputs_of(model.model.config, 7, 9)):  # what the export has seen, and what not
        with torch.no_grad():
            found, wanted = run(*given), model(*given)
        assert wanted.std() > 1e-3 and difference(found.numpy(), wanted.numpy()) <= TOLERANCE


@pytest.mark.parametrize("name", quick(QUICK_ONNX))
def test_onnx_equals_eager_and_holds_no_scatter(name: str) -> None:
    model, inputs = model_and_inputs(name)
    graph = to_onnx(export_program(model, *inputs))
    onnx.checker.check_model(graph)
    assert not [node.op_type for node in graph.graph.node if "Scatter" in node.op_type]
    names = [node.name for node in graph.graph.input]
    assert names == ["images", "maps"][: len(inputs)]
    session = inference_session(graph.SerializeToString(), name)
    for given in (inputs, inputs_of(model.model.config, 7, 9)):
        found = session.run(None, dict(zip(names, (x.numpy() for x in given))))[0]
        with torch.no_grad():
            assert difference(found, model(*given).numpy()) <= TOLERANCE


@pytest.mark.parametrize(("side", "tokens"), [(32, 5), (224, 5), (448, 5), (32, 300)])
def test_regions_counted_without_scatter_are_the_same_numbers(side: int, tokens: int) -> None:
    """Bit for bit, at widths where float32 still holds the sums of squares and where it does not, and with more tokens
    than the bytes of a map can tell apart.
    """
    from focusvit.model.regions import measure_regions, overlap_matrix

    class Counts(torch.nn.Module):
        def forward(self, maps: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return (overlap_matrix(maps, (4, 4), tokens), *measure_regions(maps, tokens))

    generator = torch.Generator().manual_seed(0)
    maps = torch.randint(0, 4, (2, side // 16, side // 16), generator=generator, dtype=torch.uint8)
    maps = maps.repeat_interleave(16, 1).repeat_interleave(16, 2)  # large regions; ids from 4 on are empty
    program = export_program(Counts(), maps)
    assert "scatter" not in str(program.graph)
    for found, wanted in zip(program.module()(maps), Counts()(maps)):
        assert torch.equal(found, wanted)


def test_int8_touches_linear_layers_of_blocks_only_and_shrinks_the_file() -> None:
    config = focusvit_64px(image_px=32, patch_px=4, width=96, depth=3, num_classes=5)
    torch.manual_seed(0)
    model = FixedBudget(FocusViT(config).eval(), config.tokens)
    images, maps = reference.images(2, config), reference.maps(2, config, config.tokens)
    exact = to_onnx(export_program(model, images, maps))
    small = to_int8(exact)
    kinds = Counter(node.op_type for node in small.graph.node)
    assert kinds["MatMulInteger"] == 3 * 4  # qkv, proj, fc1, fc2 of each block
    products = [node for node in exact.graph.node if node.op_type in ("MatMul", "Gemm")]
    assert kinds["MatMul"] + kinds["Gemm"] == len(products) - 3 * 4
    assert len(small.SerializeToString()) < 0.5 * len(exact.SerializeToString())
    given = {"images": images.numpy(), "maps": maps.numpy()}
    found, wanted = (inference_session(m.SerializeToString(), "x").run(None, given)[0] for m in (small, exact))
    assert 0 < difference(found, wanted) < 0.05
    with torch.no_grad():
        assert difference(wanted, model(images, maps).numpy()) <= TOLERANCE


def test_batches_are_filled_up_and_cut_again() -> None:
    rows = np.arange(7)
    seen = []

    def run(part: np.ndarray) -> np.ndarray:
        seen.append(len(part))
        return part * 2

    assert in_batches(run, [rows], 3).tolist() == (rows * 2).tolist() and seen == [3, 3, 3]


def test_a_model_of_several_levels_is_refused_before_any_file(tmp_path):
    checkpoint = make_checkpoint(tmp_path / "ckpt", depth=3, then=((2, 4),))
    with pytest.raises(UsageError, match=r"further levels \(then=\(\(2, 4\),\)\)"):
        export.main(["--checkpoint", checkpoint, "--out", str(tmp_path / "model.onnx")])
    assert not (tmp_path / "model.onnx").exists()
