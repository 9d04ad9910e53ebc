"""The set-up scripts of images and machines, run for real in an environment of their own."""

import os
import subprocess
import sys

import pytest

from cluster.doctor.machine import check_fast_slic
from testkit.checkout import ROOT

pytestmark = pytest.mark.soak
CONFIGS = ROOT / "cluster" / "configs"

LABELS = """
import hashlib, numpy
from fast_slic import Slic
image = numpy.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=numpy.uint8)
print(hashlib.sha256(Slic(num_components=64, num_threads=1).iterate(image).tobytes()).hexdigest())
"""


def test_the_portable_fast_slic_builds_and_gives_the_same_labels(tmp_path):
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    tools = ["setuptools", "wheel", "cython", "numpy"]
    constraints = CONFIGS.parents[1] / "constraints.txt"
    subprocess.run([python, "-m", "pip", "install", "-q", "-c", constraints, *tools], check=True)
    path = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
    script = ["bash", CONFIGS / "portable_fast_slic.sh"]
    subprocess.run(script, check=True, env={**os.environ, "PATH": path, "VIRTUAL_ENV": str(environment)})
    found = check_fast_slic(str(python), flags=frozenset())
    assert found.level == "ok" and "portable build" in found.found
    ours, portable = (
        subprocess.run([one, "-c", LABELS], capture_output=True, text=True, check=True).stdout
        for one in (sys.executable, python)
    )
    assert ours == portable
