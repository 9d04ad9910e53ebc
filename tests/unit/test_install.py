"""`pip install .`: the build backend has pip build fast-slic into its cache, as it does not say what it builds with."""

import importlib.util
import os
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from testkit.checkout import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture
def backend():
    spec = importlib.util.spec_from_file_location("build_backend", ROOT / "cluster" / "configs" / "build_backend.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def asked(backend, monkeypatch, tmp_path):
    """The commands that the backend runs, in what looks like pip's environment for this build; `returncode` of them."""
    found = SimpleNamespace(commands=[], environments=[], returncode=0, overlay=tmp_path / "pip-build-env-x" / "lib")
    place = SimpleNamespace(origin=str(found.overlay / "Cython" / "__init__.py"))
    monkeypatch.setattr(backend, "find_spec", lambda name: place)
    monkeypatch.setattr(backend, "is_installed", lambda name, folder: False)

    def run(command, env):
        found.commands.append(command)
        found.environments.append(env)
        return SimpleNamespace(returncode=found.returncode)

    monkeypatch.setattr(backend.subprocess, "run", run)
    monkeypatch.delenv("PIP_NO_CACHE_DIR", raising=False)
    return found


def test_pip_is_asked_for_the_wheel_that_pyproject_names(backend, asked):
    backend.make_fast_slic()
    (command,), (environment,) = asked.commands, asked.environments
    assert command[:4] == [sys.executable, "-m", "pip", "wheel"] and "--no-build-isolation" in command
    assert command[-1] in PROJECT["project"]["dependencies"] and command[-1].startswith("fast-slic")
    assert environment["PYTHONPATH"] == str(asked.overlay)
    assert {"cython", "numpy"} <= set(PROJECT["build-system"]["requires"])


def test_without_pips_isolation_or_with_fast_slic_there_is_nothing_to_do(backend, asked, monkeypatch):
    monkeypatch.setattr(backend, "is_installed", lambda name, folder: True)
    backend.make_fast_slic()
    monkeypatch.undo()
    backend.subprocess = SimpleNamespace(run=lambda *a, **k: pytest.fail("pip was asked"))
    backend.make_fast_slic()  # in this environment Cython is nothing that pip made for a build
    assert asked.commands == []
    assert backend.is_installed("fast-slic", sysconfig.get_path("platlib"))
    assert not backend.is_installed("fast-slic", str(ROOT / "cluster"))


@pytest.mark.parametrize("cause", ["failed", "no cache"])
def test_where_pip_cannot_keep_the_wheel_two_lines_are_told(backend, asked, monkeypatch, capsys, cause):
    if cause == "failed":
        asked.returncode = 1
    else:
        monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    with pytest.raises(SystemExit) as left:
        backend.make_fast_slic()
    assert left.value.code == 1
    assert "python -m pip install --no-build-isolation ." in capsys.readouterr().err


@pytest.mark.soak  # a C++ build, and a registry
@pytest.mark.timeout(600)
def test_pip_finds_fast_slic_after_it_has_built_this_project(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    pip = [tmp_path / "venv" / "bin" / "python", "-m", "pip"]
    environment = {**os.environ, "PIP_CACHE_DIR": str(tmp_path / "cache")}
    environment.pop("PYTHONPATH", None)
    for what in (ROOT, "fast-slic==0.4.0"):
        subprocess.run([*pip, "install", "--no-deps", what], env=environment, cwd=tmp_path, check=True)
    subprocess.run([*pip, "install", "numpy"], env=environment, check=True)
    code = "import numpy, fast_slic; print(fast_slic.Slic(9).iterate(numpy.zeros((30, 30, 3), numpy.uint8)).shape)"
    done = subprocess.run([pip[0], "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(30, 30)"
