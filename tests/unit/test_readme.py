"""Every command in the documents is understood by the program that it names; the Python in README.md runs."""

import re

import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTModel

import focusvit
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


BLOCKS = {  # every block of Python in a document -> what a test must bring
    ("README.md", 0): "nothing",
    ("focusvit/README.md", 0): "inputs",
    ("focusvit/README.md", 1): "files",
    ("focusvit/README.md", 2): "host",
    ("transfer/README.md", 0): "a registry: tests/integration/test_transfer_registry.py has one",
}


def python_blocks(document: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


def test_every_block_of_python_is_known_here():
    assert set(BLOCKS) == {(name, i) for name in DOCUMENTS for i in range(len(python_blocks(name)))}


def grid(side: int, cells: int) -> torch.Tensor:
    """A map uint8 (1, side, side) of cells x cells regions."""
    line = torch.arange(side) * cells // side
    return (line[:, None] * cells + line)[None].to(torch.uint8)


def run(document: str, number: int, **names) -> dict:
    exec(python_blocks(document)[number], names)
    return names


def test_the_python_of_the_readme_runs():
    names = run("README.md", 0)
    assert names["logits"].shape == (1, 40) and names["features"].shape == (1, 197, 768)


def test_the_python_of_the_model_runs():
    images = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
    with torch.inference_mode():
        names = run("focusvit/README.md", 0, images=images, maps=grid(112, 8), maps100=grid(112, 10))
    assert names["logits"].shape == (1, 40) and len(names["stages"]) > 1


def test_the_python_of_a_package_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_checkpoint(tmp_path / "runs" / "pets")
    make_dataset(tmp_path / "shards")
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (48, 40), (200, 30, 30)).save("photos/red.png")
    names = run("focusvit/README.md", 1)
    assert "(32, 32)" in capsys.readouterr().out and names["features"].shape == (1, 32)
    assert names["image"].shape == (3, 32, 32) and names["map"].max() == 8 and names["label"] >= 0


def test_the_python_of_a_patched_host_runs():
    small = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 10}
    model = ViTModel(ViTConfig(**small)).eval()
    pixels, patches = torch.randn(1, 3, 224, 224), torch.randn(1, 196, 16)
    with torch.inference_mode():
        given = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "maps": grid(224, 9), "pixels": pixels, "patches": patches}
        names = run("focusvit/README.md", 2, focusvit=focusvit, model=model, head=torch.nn.Linear(16, 5), **given)
    assert names["features"].shape == (1, 16, 224, 224) and names["scores"].shape == (1, 5, 224, 224)


def test_documents_stay_short():
    lines = {document: len((ROOT / document).read_text().splitlines()) for document in DOCUMENTS}
    assert len(lines) > 10 and lines["README.md"] <= 110
    assert {name: count for name, count in lines.items() if name.endswith("README.md") and count > 150} == {}
