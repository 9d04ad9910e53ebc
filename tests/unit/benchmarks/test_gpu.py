"""Every stage of `bench gpu` at toy size brings rows of which none failed; what fails costs its own row alone."""

import importlib
import json
import sys
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from focusvit.segment.torch_slic import torch_slic
from pipeline.errors import UsageError
from testkit.tiny_shards import make_dataset
from tests.benchmarks.gpu import accuracy, gpu, inputs, segment
from tests.benchmarks.gpu.arrays import read
from tests.benchmarks.gpu.plan import STAGES, Plan
from tests.benchmarks.gpu.rows import rows
from tests.benchmarks.provenance import Checkout
from tests.benchmarks.study.matrix import SETS
from tests.benchmarks.study.study import arrays


@pytest.mark.parametrize("stage", [name for name in STAGES if name != "laws"])
def test_a_stage_brings_rows(stage, monkeypatch):
    monkeypatch.setattr(Plan, "compiled", lambda plan, model: model)  # tracing is what takes long
    plan = Plan("cpu", toy=True, ends=time.monotonic() + 60)
    found = list(importlib.import_module(f"tests.benchmarks.gpu.{stage}").tables(plan))
    assert found and found[-1].rows and plan.failures == []


def test_laws_of_every_model_stand_before_anything_is_compiled(monkeypatch):
    def compiled(plan, model):
        raise MemoryError

    monkeypatch.setattr(Plan, "compiled", compiled)
    plan = Plan("cpu", True, time.monotonic() + 60)
    found = list(importlib.import_module("tests.benchmarks.gpu.laws").tables(plan))
    before, last = found[len(found) // 2 - 1].rows, found[-1].rows
    assert len(before) == len(last) == len(found) // 2 >= 6
    for row in before:
        assert max(map(float, row[1:3])) < 5e-2 and row[3] == "not yet"
    assert [row[3] for row in last] == ["failed: MemoryError: -"] * 2 + ["not rehearsed"] * (len(last) - 2)
    assert [row[:3] for row in last] == [row[:3] for row in before] and len(plan.failures) == 2


def test_models_that_share_code_are_each_traced():
    plan, images = Plan("cpu", True, time.monotonic() + 60), torch.ones(2, 3)

    class Scaled(torch.nn.Module):
        def __init__(self, by):
            super().__init__()
            self.by = by

        def forward(self, images):
            return images * self.by

    for by in range(10):  # torch's own limit is eight
        assert torch.equal(plan.compiled(Scaled(by))(images), images * by)


@pytest.mark.parametrize("at", [0, -1])
def test_a_model_that_fails_is_a_row_and_its_trace_is_kept(at, monkeypatch):
    step, name = importlib.import_module("tests.benchmarks.gpu.step"), ""

    def some(size, px, toy):
        nonlocal name
        held = [row for row in rows(size, px, toy) if row.config is not None]
        name = held[at].name
        held[at] = type(held[at])(name, None, lambda side: torch.nn.Linear(1, 1))
        return held

    monkeypatch.setattr(step, "rows", some)
    monkeypatch.setattr(step, "compiled_rows", lambda size, px, toy: [])
    plan = Plan("cpu", toy=True, ends=time.monotonic() + 60)
    last = list(step.tables(plan))[-1].rows
    assert len(last) >= 6 and last[at][0] == name and last[at][1].startswith("failed: RuntimeError: ")
    assert sum("failed" in str(row[1]) for row in last) == 1 == len(plan.failures)
    assert name in plan.failures[0] and "Traceback" in plan.failures[0] and "step.py" in plan.failures[0]


def test_a_library_that_is_absent_or_broken_is_a_row_and_no_failure(tmp_path, monkeypatch):
    plan = Plan("cpu", toy=True, ends=time.monotonic() + 60)
    row = next(row for row in rows("tiny", 224, toy=True) if "timm" in row.name)
    monkeypatch.syspath_prepend(tmp_path)
    for text, told in (("raise RuntimeError('no nms')", "timm: RuntimeError: no nms"), ("import absent", "No module")):
        (tmp_path / "timm.py").write_text(f"{text}  # {time.monotonic_ns()}")
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, "timm", raising=False)
        with pytest.raises(ImportError) as found:
            row.build("cpu")
        assert told in plan.failed(row.name, found.value) and plan.failures == []


def test_a_stage_that_breaks_or_hangs_leaves_its_tables_and_a_row(tmp_path, monkeypatch):
    out = tmp_path / "out"
    (tmp_path / "stage.py").write_text(
        "import os, sys, time, subprocess, json\n"
        "stage, out = sys.argv[1:3]\n"
        "table = {'title': 'of ' + stage, 'columns': ['a'] * 9, 'rows': [[stage + '-cell'] * 9], 'note': ''}\n"
        "json.dump({'tables': [table], 'failures': []}, open(f'{out}/{stage}.json', 'w'))\n"
        "if stage == 'segment': os.abort()\n"
        "if stage == 'throughput': subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).wait()\n"
    )
    run = gpu._run

    def shortened(command, most_s):
        stage = command[command.index("--stage") + 1]
        return run([sys.executable, str(tmp_path / "stage.py"), stage, str(out)], 1.0)

    monkeypatch.setattr(gpu, "_run", shortened)
    assert gpu.main(["--rehearsal", "--out", str(out), "--stages", "laws", "segment", "throughput"]) == 1
    page = (out / "README.md").read_text()
    ends = {row.split(" | ")[0].strip("| "): row.split(" | ")[1] for row in page.splitlines() if row.startswith("| ")}
    assert ends["laws"] == "done" and ends["segment"] == "exit code -6"
    assert ends["throughput"] == "stopped: it went on after its time"
    assert all(f"{stage}-cell" in page for stage in ("laws", "segment", "throughput"))
    assert len(list(out.iterdir())) == 4  # a machine that hands back few files still hands back all


def test_kernels_that_fail_or_differ_are_not_used_by_later_stages(tmp_path):
    def after(agreed, stage="throughput"):
        rows = [[64, 256, "torch", "9", "1", "9", "100.00%", "100.00%", "the same"],
                [64, 256, "Triton", "1", "0.1", "1", agreed, "99.00%", "the same"]]  # fmt: skip
        (tmp_path / "segment.json").write_text(json.dumps({"tables": [{"rows": rows}], "failures": []}))
        return gpu._kernels_are_right(tmp_path, stage)

    assert gpu._kernels_are_right(tmp_path, "throughput")  # nobody looked
    (tmp_path / "segment.json").write_text(json.dumps({"tables": [{"rows": []}], "failures": []}))
    assert not gpu._kernels_are_right(tmp_path, "throughput")  # it was ended before it came to them
    assert after("99.90%") and not after("94.99%") and not after("")
    assert after("", stage="segment")


def test_a_stage_whose_time_is_over_begins_nothing():
    plan = Plan("cpu", toy=True, ends=time.monotonic() - 1)
    assert list(importlib.import_module("tests.benchmarks.gpu.step").tables(plan)) == []


def test_a_form_of_slic_that_fails_or_is_absent_is_a_row():
    def broken(images, tokens):
        raise RuntimeError("no kernel\nimage")

    plan, images = Plan("cpu", toy=True, ends=time.monotonic() + 60), torch.rand(2, 3, 16, 16)
    times = {}
    first = segment._cells(plan, torch_slic, images, 4, times)
    assert first[1:] == ["1.00", "no GPU", "100.00%", "100.00%", "the same"] and list(times) == [(2, 4)]
    failed = segment._cells(plan, broken, images, 4, times)
    assert failed == ["failed: RuntimeError: no kernel", *[""] * 5] and "no kernel\nimage" in plan.failures[0]
    assert segment._cells(plan, "not available: no GPU", images, 4, times)[0] == "not available: no GPU"
    wrong = segment._cells(plan, lambda images, tokens: torch_slic(images, tokens) * 0, images, 4, times)
    assert wrong[3] == wrong[4] != "100.00%" and len(wrong) == len(failed) == len(first)


def test_every_row_of_the_real_sizes_can_be_described():
    for size in ("small", "base"):
        for px in (224, 512):
            named = [row.name for row in rows(size, px, toy=False)]
            assert len(named) == len(set(named)) >= 8


def test_carried_arrays_come_back_at_the_side_of_the_model(tmp_path, capsys):
    make_dataset(tmp_path / "sets" / "tiny-imagenet-40")
    given = ["--data", str(tmp_path / "sets"), "--out", str(tmp_path), "--sets", "tiny-imagenet-40", "--train", "9"]
    with_val = replace(SETS["tiny-imagenet-40"], test_split="train")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(inputs, "SETS", {"tiny-imagenet-40": with_val})
        assert inputs.main(given) == 0
    wanted = arrays(f"{tmp_path}/sets/tiny-imagenet-40", "train", 64, 32, 16)
    whole = read(tmp_path / "tiny-imagenet-40.npz", 16, 64, "cpu", ("train", "val")).arrays
    assert (whole["train"].images.int() - wanted.images[:9].int()).abs().float().mean() < 3  # JPEG, of enlarged images
    assert torch.equal(whole["train"].maps, wanted.maps[:9]) and len(whole["val"]) == len(wanted)
    assert torch.equal(whole["val"].class_ids, wanted.class_ids)
    half = read(tmp_path / "tiny-imagenet-40.npz", None, 32, "cpu", ("train", "val")).arrays["train"]
    mean = whole["train"].images.numpy().reshape(9, 3, 32, 2, 32, 2).mean((3, 5))
    assert half.maps is None and np.abs(half.images.numpy() - mean).max() <= 0.5
    image = wanted.images[0].numpy()
    png = cv2.imencode(".png", image.transpose(1, 2, 0)[:, :, ::-1])[1].tobytes()
    assert inputs.carried(png, image) == png  # the same pixels: the file itself travels


def test_trainings_on_their_way_and_failed_ones_are_told(tmp_path, monkeypatch):
    plan = Plan("cpu", toy=True, ends=time.monotonic() + 60)
    done, late, broken = (accuracy.Training("cifar10", row, 0, tmp_path / row) for row in ("done", "late", "broken"))
    reached = {done: (1000, 0.75), late: (400, 0.5), broken: (0, 0.0)}
    monkeypatch.setattr(accuracy.Training, "reached", lambda training: reached[training])
    assert accuracy._table("cifar10", {done: True, late: False, broken: False}).rows == [
        ["done", "75.0%", 1, "75.0% - 75.0%", ""], ["late", "-", 0, "", "50.0% after 400 samples"],
        ["broken", "-", 0, "", "0.0% after 0 samples"],
    ]  # fmt: skip
    with pytest.raises(SystemExit):
        accuracy._train(accuracy.Training("cifar10", "no such row", 0, tmp_path / "broken"), plan)
    accuracy._keep_trace(plan, broken, 1)
    assert plan.failures[0].startswith("cifar10, broken, seed 0\nTraceback") and "no such row" in plan.failures[0]


def test_a_changed_checkout_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "checkout", lambda root, ignore: Checkout("abc", ("code.py",)))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UsageError, match=r"differs from its commit abc in code\.py"):
        gpu.main(["--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
