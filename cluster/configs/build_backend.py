"""The build backend: setuptools', which first lets pip have a wheel of fast-slic.

fast-slic's setup script imports numpy and Cython and does not declare them. uv reads in pyproject.toml what it needs;
pip has no such setting and would build it in an environment that holds neither. But pip keeps the wheels that it
builds, and takes a package from there before it builds it again. So pip is asked for that wheel here, where numpy and
Cython are (`build-system.requires`), just before it comes to the dependencies.
"""

import os
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403 - all hooks of the interface

ISOLATED = "pip-build-env-"  # part of the folder in which pip keeps what `build-system.requires` names
TWO_LINES = """FocusViT needs fast-slic. Its setup script needs numpy and Cython while it runs, and pip could not keep
a wheel of it (see above; without pip's cache it cannot). Type these two lines instead:

    python -m pip install -U setuptools wheel cython numpy
    python -m pip install --no-build-isolation .
"""


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    make_fast_slic()
    return build_meta.get_requires_for_build_wheel(config_settings)


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    make_fast_slic()
    return build_meta.get_requires_for_build_editable(config_settings)


def make_fast_slic() -> None:
    """Have pip build fast-slic into its own cache. Nothing to do without pip's isolation, or where it is installed."""
    overlay = cython_of_pip()
    if overlay is None or is_installed("fast-slic", sysconfig.get_path("platlib")):
        return
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", folder, requirement()],
            env={**os.environ, "PYTHONPATH": str(overlay)},
        )
    if done.returncode or os.environ.get("PIP_NO_CACHE_DIR"):
        sys.stderr.write(TWO_LINES)
        raise SystemExit(1)


def cython_of_pip() -> Path | None:
    """The folder from which this build imports Cython, when pip made it for this build."""
    found = find_spec("Cython")
    if found is None or found.origin is None or ISOLATED not in found.origin:
        return None
    return Path(found.origin).parents[1]


def is_installed(name: str, folder: str) -> bool:
    """Whether the environment that is installed into has the package: `sys.path` is that of the build."""
    return any(found.metadata["Name"] == name for found in metadata.distributions(path=[folder]))


def requirement() -> str:
    """fast-slic as pyproject.toml asks for it."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    (found,) = (text for text in project["dependencies"] if text.startswith("fast-slic"))
    return found
