"""Every command in the documents is understood by the program that it names; the Python in README.md runs."""

import re

import pytest
from PIL import Image

from testkit.checkout import ROOT
from testkit.command_lines import check
from testkit.tiny_checkpoint import make_checkpoint
from testkit.tiny_shards import make_dataset

DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in (".", "pipeline", "focusvit", "transfer", "cluster", "tests/benchmarks/results")
    for path in (ROOT / folder).glob("[A-Z]*.md")
)
WITH_COMMANDS = {f"{folder}README.md" for folder in ("", "pipeline/", "focusvit/", "transfer/", "cluster/")}


def commands(text: str) -> list[str]:
    """Lines of indented or fenced blocks that begin with `focusvit`, long ones joined."""
    text = text.replace("\\\n", " ")
    found = []
    fenced = False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif (fenced or line.startswith("    ")) and re.match(r"\s*(\$ )?(\.venv/bin/)?focusvit [a-z]", line):
            found.append(re.sub(r"^\s*(\$ )?(\.venv/bin/)?", "", line))
    return found


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_are_understood(document, monkeypatch):
    found = commands((ROOT / document).read_text())
    assert found or document not in WITH_COMMANDS, f"no command was found in {document}"
    whole = [command for command in found if not re.search(r"\[|\.\.\.|\|", command)]  # the others are a synopsis
    assert whole or document not in WITH_COMMANDS, f"every command of {document} is a synopsis"
    for command in whole:
        assert check(command, monkeypatch), command


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    path = ROOT / document
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text())
    assert targets or document not in WITH_COMMANDS, f"no link was found in {document}"
    for target in targets:
        assert target.startswith("http") or (path.parent / target).exists(), f"{document} links {target}"


def test_recipes_named_in_the_readme_exist():
    from focusvit.recipes.small import RECIPES

    named = re.findall(r"focusvit pretrain +(\w+)", (ROOT / "README.md").read_text())
    assert named and set(named) <= set(RECIPES)


def test_the_python_of_the_readme_runs():
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names: dict = {}
    exec(code, names)
    assert names["logits"].shape == (1, 40) and names["features"].shape == (1, 197, 768)


def test_the_python_of_a_package_runs(tmp_path, monkeypatch, capsys):
    code = re.search(r"## From Python\n\n```python\n(.*?)```", (ROOT / "focusvit/README.md").read_text(), re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    make_checkpoint(tmp_path / "runs" / "pets")
    make_dataset(tmp_path / "shards")
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (48, 40), (200, 30, 30)).save("photos/red.png")
    names: dict = {}
    exec(code, names)
    assert "(32, 32)" in capsys.readouterr().out and names["features"].shape == (1, 32)
    assert names["image"].shape == (3, 32, 32) and names["map"].max() == 8 and names["label"] >= 0


def test_documents_stay_short():
    lines = {document: len((ROOT / document).read_text().splitlines()) for document in DOCUMENTS}
    assert len(lines) > 10 and lines["README.md"] <= 110
    assert {name: count for name, count in lines.items() if name.endswith("README.md") and count > 150} == {}
