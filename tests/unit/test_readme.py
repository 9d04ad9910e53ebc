"""Every command in the documents is understood by the program that it names."""

import re

import pytest

from testkit.checkout import ROOT
from testkit.command_lines import check

DOCUMENTS = ["README.md", "pipeline/README.md", "focusvit/README.md", "transfer/README.md", "cluster/README.md"]


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
    from focusvit.recipes.small import debug

    monkeypatch.setattr("cluster.train.pretrain.load_checkpoint", lambda uri: None)
    monkeypatch.setattr("cluster.train.pretrain.finetune", lambda record: debug())
    for command in commands((ROOT / document).read_text()):
        if not re.search(r"\[|\.\.\.|\|", command):  # a synopsis, not a command
            assert check(command, monkeypatch), command


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    path = ROOT / document
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
        assert target.startswith("http") or (path.parent / target).exists(), f"{document} links {target}"


def test_recipes_named_in_the_readme_exist():
    from focusvit.recipes.small import RECIPES

    named = re.findall(r"focusvit pretrain +(\w+)", (ROOT / "README.md").read_text())
    assert named and set(named) <= set(RECIPES)
