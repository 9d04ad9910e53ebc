"""One precision setting: right by device, the same in training, scoring, prediction and transfer, and exact where a
model needs all digits. A GPU's answers are played: its description, and products whose factors are rounded to TF32."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from focusvit.model import regions
from focusvit.model.config import FocusViTConfig
from focusvit.model.latents import pooled_regions
from focusvit.model.partitions import grid_cells
from focusvit.model.pooling import SuperpixelPooling
from focusvit.precision import as_trained, computing, settled, tf32
from focusvit.predict import evaluate
from focusvit.predict.predictor import Predictor, model_tensors
from focusvit.segment.slic import slic
from focusvit.train.loop import train
from testkit.tiny_checkpoint import edit_checkpoint, make_checkpoint
from testkit.tiny_shards import make_dataset
from testkit.tiny_training import small, values_of
from transfer.tasks.spec import WorkSpec
from transfer.tasks.task import Task
from transfer.work import run_task


@pytest.mark.parametrize("has", [True, False])
def test_each_setting_means_one_thing_on_a_device(has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: has or including_emulation)
    best = "bf16" if has else "fp32"
    assert [settled("auto", device) for device in ("cuda", "cuda:1", "cpu")] == [best, best, "fp32"]
    assert [settled(one, "cuda") for one in ("fp32", "tf32", "bf16")] == ["fp32", "tf32", "bf16"]  # type: ignore[arg-type]
    assert [settled(one, "cpu") for one in ("fp32", "tf32", "bf16")] == ["fp32", "fp32", "bf16"]  # type: ignore[arg-type]


def test_tf32_is_allowed_on_a_gpu_when_asked_for_and_put_back() -> None:
    seen = []
    for precision, device in (("tf32", "cuda"), ("bf16", "cuda"), ("fp32", "cuda"), ("tf32", "cpu")):
        with pytest.raises(ZeroDivisionError), tf32(precision, device):  # type: ignore[arg-type]
            seen.append(torch.get_float32_matmul_precision())
            raise ZeroDivisionError
        assert torch.get_float32_matmul_precision() == "highest"
    assert seen == ["high", "highest", "highest", "highest"]


def test_what_was_asked_for_counts_before_the_training_and_this_before_the_device() -> None:
    asked = ("auto", "fp32", "bf16")
    assert [as_trained(one, {"precision": "bf16"}) for one in asked] == ["bf16", "fp32", "bf16"]  # type: ignore[arg-type]
    assert [as_trained(one, {}) for one in asked] == list(asked)  # type: ignore[arg-type]


class _Tf32(TorchDispatchMode):
    """Products of float32 lose the digits that a tensor core would not read, unless that is forbidden."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("mm", "bmm", "addmm", "baddbmm") and torch.get_float32_matmul_precision() != "highest":
            args = tuple(_rounded(a) if isinstance(a, torch.Tensor) and a.dtype == torch.float32 else a for a in args)
        return func(*args, **(kwargs or {}))


def _rounded(x: torch.Tensor) -> torch.Tensor:
    """To 10 bits of mantissa, half of the last one away from zero."""
    return ((x.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


@pytest.fixture
def on_tensor_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This CPU is a GPU whose products may be TF32."""
    monkeypatch.setattr(regions, "TF32_DEVICES", ("cpu",))
    torch.set_float32_matmul_precision("high")
    try:
        with _Tf32():
            yield
    finally:
        torch.set_float32_matmul_precision("highest")


def test_the_played_tensor_core_rounds(on_tensor_cores: None) -> None:
    one = torch.ones(1, 1)
    assert (one * (1 + 2**-12) @ one).item() == 1 and (one * (1 + 2**-10) @ one).item() > 1


def test_superpixels_are_the_same_where_tf32_is_allowed(on_tensor_cores: None) -> None:
    images = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    under = slic(images, 16)
    assert torch.get_float32_matmul_precision() == "high"
    torch.set_float32_matmul_precision("highest")
    assert torch.equal(under, slic(images, 16))


def test_the_places_of_latents_and_their_gradients_are_exact_where_tf32_is_allowed(on_tensor_cores: None) -> None:
    places = regions.measure_regions(torch.from_numpy(grid_cells(64, 32, 32))[None], 64)
    weights = torch.softmax(10 * torch.randn(1, 16, 64, generator=torch.Generator().manual_seed(0)), -1)

    def moments(dtype: torch.dtype) -> list[torch.Tensor]:
        given = weights.to(dtype, copy=True).requires_grad_()
        found = pooled_regions(given, regions.Regions(*(part.to(dtype) for part in places)))
        (gradient,) = torch.autograd.grad(found.covariance.sum(), given)
        assert found.covariance.dtype == dtype
        return [found.covariance, found.centre, gradient]

    for one, other in zip(moments(torch.float32), moments(torch.float64), strict=True):
        assert torch.allclose(one.double(), other, rtol=1e-4, atol=1e-7)


def test_a_spread_of_patches_is_exact_where_tf32_is_allowed(on_tensor_cores: None) -> None:
    """Patches around 30 that differ by 0.01: their squares need all digits."""
    config = FocusViTConfig(image_px=32, patch_px=8, width=8, heads=2, depth=1, num_classes=2, tokens=4,
                            pooling="mean_std")  # fmt: skip
    pooling = SuperpixelPooling(config)
    torch.nn.init.eye_(pooling.std_proj.weight)  # type: ignore[union-attr]
    patches = 30 + 0.01 * torch.randn(1, 16, 8, generator=torch.Generator().manual_seed(0))
    membership = torch.eye(4).repeat_interleave(4, 1)[None]

    def found(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        given = patches.to(dtype).requires_grad_()
        tokens = pooling.to(dtype)(given, membership.to(dtype))
        return tokens, torch.autograd.grad((tokens * torch.arange(8)).sum(), given)[0]

    for one, other in zip(found(torch.float32), found(torch.float64), strict=True):
        assert torch.allclose(one.double(), other, rtol=1e-2, atol=1e-3)


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run in bf16 and its data."""
    root = tmp_path_factory.mktemp("precision")
    data = make_dataset(root / "data")
    train(small(epochs=1, precision="bf16", eval_every_epochs=1.0), data_uri=data, run_dir=str(root / "run"))
    return root, data


def test_evaluate_gives_the_loss_that_the_training_wrote_down(
    road: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    root, data = road
    (expected,) = [values["val/loss"] for values in values_of(root / "run").values() if "val/loss" in values]
    losses = {}
    for precision in ("auto", "bf16", "fp32"):
        argv = ["--checkpoint", str(root / "run"), "--data", data, "--device", "cpu", "--json", "--batch-size", "17"]
        assert evaluate.main([*argv, "--precision", precision]) == 0
        losses[precision] = json.loads(capsys.readouterr().out)["score"]["loss"]
    assert losses["auto"] == losses["bf16"] == expected != losses["fp32"]
    assert losses["fp32"] == pytest.approx(expected, rel=0.02)


def test_the_precision_of_predictions_and_features_is_the_training_s_unless_asked(
    road: tuple[Path, str], tmp_path: Path
) -> None:
    _, data = road
    place = edit_checkpoint(make_checkpoint(tmp_path / "ckpt"), config={"precision": "bf16", "data": {"image_px": 32}})
    seen: list[torch.dtype] = []

    def watch(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
        seen.append(output.dtype)

    view = None
    for precision in ("auto", "fp32"):
        predictor = Predictor.of(place, precision=precision)  # type: ignore[arg-type]
        predictor.model.blocks[0].attn.qkv.register_forward_hook(watch)
        view = view or predictor.view(_png())
        assert float(predictor.predict([view])[0].shares.sum()) == pytest.approx(1, abs=1e-5)
    assert seen == [torch.bfloat16, torch.float32]

    rows = {}
    for precision in ("auto", "bf16", "fp32"):
        spec = WorkSpec(
            task=Task(name="tiny", uri=data), checkpoint=place, suite="quick", out=str(tmp_path / "results"),
            features_folder=str(tmp_path / "features"), baselines=False, device="auto", precision=precision,  # type: ignore[arg-type]
        )  # fmt: skip
        rows[precision] = run_task(spec)
        assert rows[precision].failures == []
    assert not rows["auto"].num_skipped and rows["bf16"].num_skipped and not rows["fp32"].num_skipped


def _png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 48, 3), np.uint8)).save(file, "png")
    return file.getvalue()


def test_batches_for_a_gpu_lie_in_pinned_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From `predict`'s views: pinned first, then sent without waiting."""
    said: list[Any] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: said.append("pinned") or self)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device, non_blocking=False: said.append(non_blocking) or self)
    view = _View()
    model_tensors([view], "cuda")  # type: ignore[list-item]
    assert said == ["pinned", True, "pinned", True]
    said.clear()
    model_tensors([view], "cpu")  # type: ignore[list-item]
    assert "pinned" not in said


class _View:
    image, map = np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), np.uint8)


def test_a_forward_is_under_autocast_inside_only() -> None:
    linear, x = torch.nn.Linear(4, 4), torch.ones(1, 4)
    with computing("bf16", "cpu"):
        assert linear(x).dtype == torch.bfloat16
    with computing("auto", "cpu"):
        assert linear(x).dtype == torch.float32
    assert linear(x).dtype == torch.float32
