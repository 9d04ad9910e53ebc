"""Benchmarks: the report carries its evidence, missing data is named, and the parts agree with each other."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UsageError
from tests.benchmarks.pipeline import fit as bench_fit
from tests.benchmarks.pipeline import preprocess as bench_preprocess
from tests.benchmarks.pipeline import superpixels as bench_superpixels


def test_missing_data_and_wrong_options_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOCUSVIT_DATA", str(tmp_path))
    for bench in (bench_superpixels, bench_preprocess):
        with pytest.raises(UsageError, match="FOCUSVIT_DATA"):
            bench.main([])
    with pytest.raises(ValueError, match="--images is 0"):
        bench_superpixels.BenchConfig(images=0)
    with pytest.raises(ValueError, match="--rounds is 0"):
        bench_preprocess.BenchConfig(rounds=0)


def test_random_crops_lie_in_the_image_and_have_the_asked_area() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        y0, x0, y1, x1 = bench_fit._crops(rng, (128, 192), 0.3)
        assert 0 <= y0 < y1 <= 1 and 0 <= x0 < x1 <= 1 and (y1 - y0) * (x1 - x0) > 0.29


def test_the_grid_has_about_k_equal_cells() -> None:
    for k in (49, 64, 100, 196):
        cells = bench_superpixels._grid((128, 192), k)
        sizes = np.bincount(cells.ravel())
        assert abs(len(sizes) / k - 1) < 0.1 and sizes.max() < 2 * sizes.min()
