"""A training is compiled where that pays, for every number of tokens that is drawn, wherever torch is installed."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo

from focusvit.train import compiling
from focusvit.train.compiling import compiled, compiles
from testkit.checkout import ROOT
from testkit.tiny_training import small

GPU, CPU = torch.device("cuda"), torch.device("cpu")


def test_a_gpu_compiles_unless_told_otherwise_or_unable(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("torch.utils._triton.has_triton", lambda: True)
    monkeypatch.setattr(compiling.shutil, "which", lambda name: "/usr/bin/cc")
    asked = {None: [True, False], True: [True, True], False: [False, False]}
    for setting, expected in asked.items():
        assert [compiles(small(compile=setting), device) for device in (GPU, CPU)] == expected
    assert not caplog.messages
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    assert not compiles(small(compile=None), GPU) and "needs a C compiler" in caplog.text
    assert compiles(small(compile=True), GPU)  # what was asked for is tried, and fails in torch's words


class Scale(torch.nn.Module):
    def forward(self, images: torch.Tensor, maps: Any, num_tokens: int) -> torch.Tensor:
        return images.float() * num_tokens


def test_every_drawn_budget_has_a_graph_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    budgets = tuple(range(1, 13))  # more than the eight after which torch gives up
    graphs, whole = [], torch.compile

    def count(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda model, **how: whole(model, backend=count, **how))
    limits, images = torch._dynamo.config, torch.ones(2, 3)
    torch._dynamo.reset()
    with limits.patch({name: getattr(limits, name) for name in ("recompile_limit", "accumulated_recompile_limit")}):
        model = compiled(Scale(), small(token_budgets=budgets[:8]))
        for _ in range(2):
            for budget in budgets:
                assert torch.equal(model(images, None, budget), images * budget)
    assert len(graphs) == len(budgets)


@pytest.mark.soak
def test_a_model_is_compiled_from_a_path_with_a_space(tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    (folder / "environment").symlink_to(sys.prefix, target_is_directory=True)
    code = (
        "import torch; from focusvit.train.compiling import compiled; from focusvit.recipes.small import debug;"
        "assert ' ' in torch.__file__; f = compiled(torch.nn.Linear(4, 4), debug());"
        "print(f(torch.ones(2, 4)).sum().isfinite().item())"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    python = folder / "environment" / "bin" / "python"
    done = subprocess.run([python, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "True\n", done.stderr[-3000:]
