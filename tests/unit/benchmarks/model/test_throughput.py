"""`bench model` on tiny models: each section makes its table, the first model is the measure of the others."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from focusvit.model.cost import time_calls
from focusvit.model.model import FocusViT
from focusvit.model.presets import focusvit, focusvit_64px, vit
from tests.benchmarks.model import tables as bench_tables
from tests.benchmarks.model import throughput as bench_model
from tests.benchmarks.model.config import SECTIONS, BenchConfig
from tests.benchmarks.model.controls import CONTROLS, control
from tests.benchmarks.model.variants import Variant, large_image_variants, main_variants, sweep_variants

TINY = {"width": 32, "depth": 2, "heads": 2, "num_classes": 5}


@pytest.fixture
def small(results: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The results of benches of tiny models."""
    variants = {
        "ViT": Variant(config=vit("tiny", **TINY)),
        "FocusViT": Variant(config=focusvit("tiny", tokens=9, **TINY)),
    }
    for name in ("main_variants", "sweep_variants"):
        monkeypatch.setattr(bench_tables, name, lambda size: dict(variants))
    large = {name: Variant(config=replace(v.config, image_px=64)) for name, v in variants.items() if v.config}
    monkeypatch.setattr(bench_tables, "large_image_variants", lambda size, px: large)
    monkeypatch.setattr(bench_model, "segmentation_seconds", lambda folder, clock: (0.001, "no photos"))
    return results


def run(results: Path, *sections: str) -> list[dict]:
    argv = ["--size", "tiny", "--sections", *sections, "--rounds", "1", "--batch-sizes", "1", "2", "--large-px", "64"]
    argv += ["--precisions", "fp32", "bf16"]
    assert bench_model.main(argv) == 0
    content = json.loads((results / "model.json").read_text())
    assert content["command"] == "python -m tests.benchmarks model " + " ".join(argv)
    assert content["commit"] and content["machine"] and "fast-slic" in content["segmenter"]
    return content["tables"]


def test_each_section_has_its_tables(small: Path) -> None:
    tables = run(small, "throughput", "training", "sweep", "large", "linear")
    titles = " | ".join(table["title"] for table in tables)
    for precision in ("fp32", "bf16"):
        for batch in (1, 2):
            assert f"Inference, {precision}, batch {batch}, eager" in titles
    assert "Pooling inside the forward" in titles and "multiply-adds, counted" in titles
    assert "Training step" in titles and "Sweep" in titles and "Attention forms at 64 px" in titles
    assert [row[2] for row in tables[-1]["rows"] if row[0].startswith("197")] == ["100%"]
    speed = [table for table in tables if "against the first" in table["columns"]]
    assert len(speed) == 6
    for table in speed:
        assert [row[0] for row in table["rows"]] == ["ViT", "FocusViT"]
        assert table["rows"][0][list(table["columns"]).index("against the first")] == "1.00x"


def test_superpixels_are_paid_by_those_who_need_them(small: Path) -> None:
    table = run(small, "throughput")[0]
    plain, ours = table["rows"]
    assert plain[1] == plain[2] and float(ours[1]) > float(ours[2])


@pytest.mark.soak
def test_memory_and_compiled_tables(small: Path) -> None:
    tables = run(small, "memory", "compiled")
    assert "100%" in tables[-1]["rows"][0][1]
    compiled = [table for table in tables if "torch.compile" in table["title"]]
    assert len(compiled) == 4 and all(len(table["rows"]) == 2 for table in compiled)


def test_bf16_is_measured_where_the_device_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for has, expected in ((False, ("fp32",)), (True, ("fp32", "bf16"))):
        monkeypatch.setattr("tests.benchmarks.model.config.cpu_has_bf16", lambda has=has: has)
        assert BenchConfig().precisions_here() == expected
        assert BenchConfig(device="cuda:0").precisions_here() == ("fp32", "bf16")
        assert BenchConfig(precisions=("bf16",)).precisions_here() == ("bf16",)


def test_the_device_segmenter_is_timed_where_the_model_runs() -> None:
    ticks = iter(range(100))
    seconds, what = bench_model.slic_seconds("absent", lambda: float(next(ticks)), tokens=9, count=2)
    assert seconds == 0.5 and what == "drawn scenes"  # one tick a call, two images


def test_a_gpu_is_waited_for_before_and_after_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: order.append(f"wait {device}"))
    time_calls({"a": lambda: order.append("a")}, 1, "cuda:1")
    assert order == ["wait cuda:1", "a", "wait cuda:1"] * 2


def test_the_variants_hold_the_default_the_controls_and_every_trunk() -> None:
    main = main_variants("small")
    assert sum(name.startswith("control: ") for name in main) == 5
    trunks = {v.config.trunk for v in (sweep_variants("small") | large_image_variants("small", 512)).values()}
    assert trunks == {"full", "latent", "hybrid", "kv_pool", "gather", "window"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sections": ("speed",)}, "--sections has 'speed'; choose from " + ", ".join(SECTIONS)),
        ({"clock": "cpu", "device": "cuda"}, "--clock cpu cannot time the device cuda"),
        ({"rounds": 0}, "--rounds is 0"),
        ({"large_px": 100}, "--large-px is 100; it must be a multiple of the patch"),
        ({"size": "huge"}, "--size is 'huge'"),
    ],
)
def test_wrong_settings_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BenchConfig(**values)


@pytest.mark.parametrize("name", CONTROLS)
def test_controls_stand_beside_a_model_at_its_budget(name: str) -> None:
    model = focusvit_64px(num_classes=3, depth=3)
    config = control(name, model)
    assert config.width == model.width and config.depth == model.depth
    built = FocusViT(config)
    assert not config.needs_maps
    assert built(torch.zeros(1, 3, *config.image_size, dtype=torch.uint8)).shape == (1, 3)


def test_an_unknown_control_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown control 'other'; there are full_grid, uniform_grid"):
        control("other", focusvit_64px())
