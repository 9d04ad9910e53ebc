"""Each journey runs to its end from nothing, and leaves the pictures that it names."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from testkit.checkout import ROOT

JOURNEYS = sorted(path.stem for path in (ROOT / "tests" / "journeys").glob("*.py") if path.stem != "steps")


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", JOURNEYS)
def test_a_journey_ends_with_its_pictures(name: str, tmp_path: Path) -> None:
    environment = {**os.environ, "JOURNEYS": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", f"tests.journeys.{name}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    pictures = re.findall(r"/\S+\.png", done.stdout.strip().splitlines()[-1])
    assert pictures and all(np.asarray(Image.open(place)).std() > 10 for place in pictures)


def test_the_journeys_are_told() -> None:
    told = re.findall(r"tests\.journeys\.(\w+)", (ROOT / "tests" / "journeys" / "README.md").read_text())
    assert len(JOURNEYS) == 4 and sorted(told) == JOURNEYS
