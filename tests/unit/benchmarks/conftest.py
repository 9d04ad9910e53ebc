"""Benches are tried out in checkouts that somebody is working on: here every checkout is clean, and no result stays."""

from pathlib import Path

import pytest

from tests.benchmarks.provenance import Checkout


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the results."""
    monkeypatch.setattr("tests.benchmarks.record.checkout", lambda root, ignore: Checkout("abc1234"))
    monkeypatch.setattr("tests.benchmarks.report.RESULTS", tmp_path / "results")
    return tmp_path / "results"
