"""Contact sheets: borders where regions meet, every cell in its place, and errors that say what to change."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.care import contact_sheet as module
from pipeline.care.contact_sheet import SheetRow, ShowConfig, contact_sheet
from pipeline.errors import UsageError
from pipeline.image.borders import LINE, draw_borders, enlarge
from pipeline.image.sheet import labelled_sheet
from pipeline.superpixels.segment import SuperpixelConfig, segment_image
from testkit.tiny_shards import make_dataset


def test_a_border_runs_where_two_regions_meet_and_nowhere_else() -> None:
    gray = np.full((64, 96, 3), 128, np.uint8)
    halves = np.zeros((32, 48), np.uint8)
    halves[:, 24:] = 1
    drawn = draw_borders(gray, halves)
    assert drawn.shape == gray.shape and (gray == 128).all()
    assert (np.abs(drawn[:, 47:49].astype(int) - LINE).sum(-1).min(1) < 60).all()  # a yellow line in the middle
    assert (drawn[:, :44] == 128).all() and (drawn[:, 52:] == 128).all()
    assert (draw_borders(gray, np.zeros((32, 48), np.uint8)) == 128).all()


def test_names_in_other_alphabets_can_be_read() -> None:
    """A letter that the font lacks is drawn as the box of one that no font has."""
    picture = np.zeros((8, 8, 3), np.uint8)
    drawn = {text: labelled_sheet([(text, picture)], "", columns=1).tobytes() for text in ("ä", "ж", "λ", "\ufffe")}
    assert len(set(drawn.values())) == 4


def test_enlarging_keeps_every_region_in_place_and_smooths_its_contour() -> None:
    regions, _ = segment_image(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8), SuperpixelConfig())
    large = enlarge(regions, 4)
    assert large.shape == (regions.shape[0] * 4, regions.shape[1] * 4)
    assert np.mean(large[2::4, 2::4] == regions) > 0.8
    assert np.array_equal(enlarge(regions, 1), regions)
    diagonal = (np.indices((20, 20)).sum(0) > 19).astype(np.uint8)
    corner_pixels = [np.count_nonzero(_corners(m)) for m in (enlarge(diagonal, 4), np.kron(diagonal, np.ones((4, 4))))]
    assert corner_pixels[0] > corner_pixels[1]  # single steps instead of blocks of four


def _corners(regions: np.ndarray) -> np.ndarray:
    across = regions[:, 1:] != regions[:, :-1]
    return across[1:] != across[:-1]


def _rows(count: int) -> list[SheetRow]:
    rng = np.random.default_rng(0)
    images = [cv2.resize(rng.integers(0, 256, (6, 9, 3), np.uint8), (96 - 40 * i, 64)) for i in range(count)]
    return [SheetRow(f"sample {i}", rgb, segment_image(rgb, SuperpixelConfig())) for i, rgb in enumerate(images)]


def test_a_sheet_has_a_row_per_sample_and_a_column_per_budget() -> None:
    small, wide, tall = (
        contact_sheet(_rows(n), tokens, cell_px=64) for n, tokens in [(1, [9]), (1, [9, 16, 25]), (2, [9])]
    )
    assert wide.shape[0] == small.shape[0] and wide.shape[1] > 1.9 * small.shape[1]
    assert tall.shape[0] > 1.7 * small.shape[0] and tall.shape[1] == small.shape[1]
    assert small.dtype == np.uint8 and (small[:, 0] == 255).all()
    assert np.isin(np.abs(wide.astype(int) - LINE).sum(-1), range(90)).any()


def test_a_budget_above_the_regions_of_a_sample_shows_all_of_them() -> None:
    found = segment_image(np.zeros((1, 1, 3), np.uint8), SuperpixelConfig())
    rows = [SheetRow("x", np.zeros((8, 8, 3), np.uint8), found)]
    assert contact_sheet(rows, [4096], cell_px=64).ndim == 3


def test_show_writes_a_picture_of_a_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = make_dataset(tmp_path / "data", splits={"train": 4})
    out = tmp_path / "sheet.png"
    assert module.main([uri, "--out", str(out), "--count", "2", "--tokens", "4,16", "--cell-px", "64"]) == 0
    assert "sheet.png" in capsys.readouterr().out
    assert cv2.imread(str(out)).ndim == 3
    assert module.main([uri, "--out", str(out), "--count", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 1


def test_wrong_requests_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no data set"):
        module.main([str(tmp_path), "--out", "x.png"])
    for field, value in [("count", 0), ("cell_px", 1), ("out", "sheet"), ("tokens", "16,x"), ("tokens", "0")]:
        with pytest.raises(ValueError, match=f"--{field.replace('_', '-')} is"):
            ShowConfig(**{"uri": str(tmp_path), "out": "x.png", field: value})
