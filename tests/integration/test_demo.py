"""The whole road as a new user walks it, twice in a row, from a folder with a space in its name."""

import json
import subprocess
import sys

import pytest


@pytest.mark.soak
@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_demo_twice(tmp_path):
    out = tmp_path / "a demo"
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", "focusvit.cli", "demo", "--out", str(out)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert "demo finished in" in done.stdout
    for written in ("index.html", "mlflow.db", "runs/transfer/results.json"):
        assert (out / written).exists()
    rows = json.loads((out / "runs/transfer/results.json").read_text())
    assert rows, "the transfer suite wrote an empty table"
