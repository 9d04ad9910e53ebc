"""`bench original`: one command counts what every row of the original repository costs, and draws it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from focusvit.recipes.original import originals
from testkit import model_reference as reference
from testkit.torchvision_like import torchvision_like
from tests.benchmarks.model import original as bench_original
from tests.benchmarks.model import throughput as bench_model

NAMES = tuple(originals())


def test_one_command_counts_every_row_and_draws_it(
    tmp_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """On small models: costs of equal models are equal, fewer tokens cost less, frozen parts are not trained."""
    small = originals(image_px=32, patch_px=8, width=24, depth=2, num_classes=5)
    for name, row in small.items():
        model = row.config.model
        if model.tokens:
            small[name] = replace(row, config=replace(row.config, model=replace(model, tokens=6)))
    monkeypatch.setattr(bench_original, "originals", lambda: small)
    monkeypatch.setattr(
        bench_original, "photos_or_drawn",
        lambda folder, count: ([image[:32, :32] for image in bench_model.photos_or_drawn("absent", 2)[0]], "drawings"),
    )  # fmt: skip
    monkeypatch.setattr(
        bench_original,
        "superpixels",
        lambda image, tokens: reference.maps(1, small["sppp"].config.model, tokens)[0].numpy(),
    )
    assert bench_original.main(["--rounds", "1", "--pictures", str(tmp_path / "pictures")]) == 0
    table = json.loads((results / "original.json").read_text())["tables"][0]
    costs = {row[0]: dict(zip(table["columns"][1:], row[1:], strict=True)) for row in table["rows"]}
    assert set(costs) == set(NAMES)
    assert costs["traditional"]["patches -> tokens"] == "16 -> 16" and costs["sppp"]["patches -> tokens"] == "16 -> 6"
    assert float(costs["sppp"]["G multiply-adds"]) <= float(costs["traditional"]["G multiply-adds"])
    assert costs["sppp_pretrained"] == costs["sppp"]
    assert float(costs["traditional_frozen"]["M trained"]) < float(costs["traditional"]["M trained"])
    pictures = sorted(path.stem for path in (tmp_path / "pictures").iterdir())
    assert pictures == sorted(NAMES)
    assert "pictures of drawings" in capsys.readouterr().out


def test_a_picture_says_which_weights_it_shows(tmp_path: Path) -> None:
    row = originals(image_px=16, patch_px=4, width=24, depth=4, num_classes=5)["traditional_pretrained"]
    save_file(torchvision_like(width=24, heads=row.config.model.heads).state_dict(), tmp_path / "weights.safetensors")
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    drawn = [
        bench_original.row_picture(row, images, weights, "row")
        for weights in ("", str(tmp_path / "weights.safetensors"))
    ]
    assert drawn[0].shape == drawn[1].shape and not np.array_equal(drawn[0], drawn[1])
