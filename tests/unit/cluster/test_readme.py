"""The commands in README are ones that their programs understand; soak tests run the journeys themselves."""

import re
import subprocess

import pytest

from testkit.checkout import ROOT
from testkit.command_lines import check
from testkit.readme import blocks

README = ROOT / "cluster" / "README.md"
DEPLOYMENT = ROOT / "cluster" / "DEPLOYMENT.md"
BLOCKS = blocks(README) | blocks(DEPLOYMENT)

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_is_valid_shell(name):
    subprocess.run(["bash", "-n", "-c", BLOCKS[name]], check=True)


def commands() -> list[str]:
    lines = [line for text in BLOCKS.values() for line in text.splitlines()]
    complete = [line for line in lines if re.match(r"(\w+=\S+ )*(focusvit|mlflow|ray) ", line) and "..." not in line]
    return sorted({line.replace("NAME", "name") for line in complete})


@pytest.mark.parametrize("command", commands())
def test_every_command_is_understood_by_its_program(command, monkeypatch):
    assert check(command, monkeypatch)


def test_every_file_that_is_named_exists():
    text = README.read_text() + DEPLOYMENT.read_text()
    named = re.findall(r"cluster/configs/[\w.-]+", text)
    named += [f"cluster/{name}" for name in re.findall(r"`(configs/[\w.-]+)`", text)]
    assert len(named) > 5
    for name in named:
        assert (ROOT / name).is_file(), name
    for path in (ROOT / "cluster" / "configs").glob("*.*"):  # not what Python keeps there of a module that was read
        assert path.name in text, f"neither README nor DEPLOYMENT mentions {path.name}"
    for path in [
        *(ROOT / "cluster").glob("[a-z]*.py"),
        *(path.parent for path in (ROOT / "cluster").glob("*/__init__.py")),
    ]:
        assert f"`{path.name}`" in text or f"`{path.name}/`" in text, (
            f"neither README nor DEPLOYMENT mentions {path.name}"
        )
