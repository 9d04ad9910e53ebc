"""Every stage of `bench gpu` at toy size, but the one that compiles: it brings rows, and none of them failed."""

import importlib
import time

import numpy as np
import pytest
import torch

from focusvit.runs.provenance import Checkout
from focusvit.segment.torch_slic import torch_slic
from pipeline.errors import UsageError
from tests.benchmarks.gpu import gpu, segment
from tests.benchmarks.gpu.arrays import read
from tests.benchmarks.gpu.plan import STAGES, Plan
from tests.benchmarks.gpu.rows import rows


@pytest.mark.parametrize("stage", [name for name in STAGES if name != "laws"])
def test_a_stage_brings_rows(stage):
    plan = Plan("cpu", toy=True, ends=time.monotonic() + 60)
    found = list(importlib.import_module(f"tests.benchmarks.gpu.{stage}").tables(plan))
    assert found
    for row in found[-1].rows:
        failed = [cell for cell in row if "Error" in str(cell)]
        assert not failed or "timm" in str(row[0]), row  # which is no dependency of ours


def test_laws_of_every_model_stand_before_anything_is_compiled(monkeypatch):
    def compiled(model):
        raise MemoryError

    monkeypatch.setattr(torch, "compile", compiled)
    found = list(importlib.import_module("tests.benchmarks.gpu.laws").tables(Plan("cpu", True, time.monotonic() + 60)))
    before, last = found[len(found) // 2 - 1].rows, found[-1].rows
    assert len(before) == len(last) == len(found) // 2 >= 6
    for row in before:
        assert max(map(float, row[1:3])) < 5e-2 and row[3] == "not yet"
    assert [row[3] for row in last] == ["failed: MemoryError -", *["not rehearsed"] * (len(last) - 1)]
    assert [row[:3] for row in last] == [row[:3] for row in before]


def test_a_stage_whose_time_is_over_begins_nothing():
    plan = Plan("cpu", toy=True, ends=time.monotonic() - 1)
    assert list(importlib.import_module("tests.benchmarks.gpu.step").tables(plan)) == []


def test_a_form_of_slic_that_fails_or_is_absent_is_a_row(monkeypatch):
    def broken(images, tokens):
        raise RuntimeError("no kernel\nimage")

    plan, images = Plan("cpu", toy=True, ends=time.monotonic() + 60), torch.rand(2, 3, 16, 16)
    for form, cells in (
        (broken, ["failed: RuntimeError: no kernel"]),
        ("not available: no GPU", ["not available: no GPU"]),
        (lambda images, tokens: torch_slic(images, tokens) * 0, None),
    ):
        monkeypatch.setattr(segment, "_kernels", lambda plan, form=form: form)
        first, second = segment._forms(plan, images, 4)
        assert first[:3] == [4, 2, "torch"] and first[4:] == ["1.00", "no GPU", "100.00%", "100.00%", "the same"]
        assert len(second) == len(first) and second[2] == "Triton"
        assert second[3:4] == cells if cells else second[-3] == second[-2] != "100.00%"


def test_every_row_of_the_real_sizes_can_be_described():
    for size in ("small", "base"):
        for px in (224, 512):
            named = [row.name for row in rows(size, px, toy=False)]
            assert len(named) == len(set(named)) >= 8


def test_carried_arrays_come_back_at_the_side_of_the_model(tmp_path):
    random = np.random.default_rng(0)
    held = {"classes": np.array(["a", "b"])}
    for split, count in (("train", 6), ("test", 4)):
        held[f"{split}_images"] = random.integers(0, 256, (count, 3, 8, 8), np.uint8)
        held[f"{split}_maps_2"] = random.integers(0, 2, (count, 4, 4), np.uint8)
        held[f"{split}_ids"] = (np.arange(count) % 2).astype(np.int16)
    np.savez_compressed(tmp_path / "x.npz", **held)
    whole = read(tmp_path / "x.npz", 2, 8, "cpu", ("train", "val")).arrays
    assert torch.equal(whole["train"].images, torch.from_numpy(held["train_images"]))
    assert torch.equal(whole["val"].maps, torch.from_numpy(held["test_maps_2"])) and len(whole["val"]) == 4
    half = read(tmp_path / "x.npz", None, 4, "cpu", ("train", "val")).arrays["train"]
    mean = held["train_images"].reshape(6, 3, 4, 2, 4, 2).mean((3, 5))
    assert half.maps is None and np.abs(half.images.numpy() - mean).max() <= 0.5


def test_a_changed_checkout_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "checkout", lambda root, ignore: Checkout("abc", ("code.py",)))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UsageError, match=r"differs from its commit abc in code\.py"):
        gpu.main(["--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
