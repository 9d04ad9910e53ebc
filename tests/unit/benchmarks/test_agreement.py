"""Two runs of a bench side by side: cells are matched by what they mean, not by where they stand."""

import json
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from tests.benchmarks.agreement import AgreementConfig, compare, ratios, shared_cells


def test_a_ratio_is_known_by_its_sign_or_by_its_column() -> None:
    table = {"title": "t", "columns": ["K", "way", "ms", "over the floor", "share"], "rows": [
        [49, "a", "1.50", "1.07", "40%"], [49, "b", "2.50", "2.30", "-"],
    ]}  # fmt: skip
    assert dict(ratios([table])) == {
        ("t", "49, a", "over the floor"): 1.07, ("t", "49, a", "share"): 40.0, ("t", "49, b", "over the floor"): 2.3
    }  # fmt: skip


def result(*rows: list[object]) -> dict[str, object]:
    return {
        "command": "x", "commit": "c", "machine": "AMD EPYC, 2 cores",
        "tables": [{"title": "t", "columns": ["model", "s", "ratio"], "rows": [*rows]}]
    }  # fmt: skip


def test_cells_are_matched_by_table_row_and_column() -> None:
    before = result(["a", "3.1", "1.00x"], ["b", "1.2", "2.00x"], ["gone", "1", "9x"])
    after = result(["b", "9.9", "2.50x"], ["a", "3.1", "1.00x"], ["new", "1", "9x"])
    (cell,) = shared_cells(before, after)
    assert (cell.where, cell.before, cell.after) == ("t: b: ratio", 2.0, 2.5)
    assert cell.difference == pytest.approx(0.2)


def test_rows_of_one_name_are_told_apart() -> None:
    found = dict(ratios(result(["a", "64", "50 %"], ["a", "128", "1,200%"])["tables"]))  # type: ignore[arg-type]
    assert found == {("t", "a, 64", "ratio"): 50.0, ("t", "a, 128", "ratio"): 1200.0}


def test_the_table_counts_what_agrees(tmp_path: Path) -> None:
    folders = [tmp_path / "before", tmp_path / "after"]
    for folder, factor in zip(folders, (1.0, 1.05), strict=True):
        folder.mkdir()
        rows = [["a", "-", f"{2 * factor:.2f}x"], ["b", "-", f"{10 if factor == 1 else 20}%"]]
        (folder / "model.json").write_text(json.dumps(result(*rows)))
        (folder / "same.json").write_text(json.dumps(result(["a", "-", "3x"])))
    config = AgreementConfig(before=str(folders[0]), after=str(folders[1]))
    (row,) = compare(config).rows
    assert row[:3] == ("model", "c on AMD EPYC", "c on AMD EPYC")
    assert row[3:5] == (2, "1 of 2") and row[6].startswith("50.0% (10 and 20): t: b: ratio")
    with pytest.raises(UsageError, match="no two different results"):
        compare(AgreementConfig(before=str(folders[0]), after=str(folders[0])))
