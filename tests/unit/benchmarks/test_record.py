"""The frame of the benches: a record names a commit that holds what was measured, or it says that none does."""

import importlib
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UsageError
from tests.benchmarks.__main__ import BENCHES
from tests.benchmarks.provenance import Checkout, checkout, evidence
from tests.benchmarks.record import RecordConfig, begin, without_places
from tests.benchmarks.report import Table

NEEDED = {"agreement": ["--before", "x"], "drop-in": ["--data", "x"], "hosts": ["--host", "x"]}


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def committed(tmp_path: Path) -> Path:
    """A checkout of one commit with one file of code and one result."""
    folder = tmp_path / "a checkout"
    (folder / "results").mkdir(parents=True)
    (folder / "code.py").write_text("1")
    (folder / "results" / "old.md").write_text("1")
    git(folder, "init")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "m")
    return folder


def test_a_checkout_is_its_commit_and_the_files_that_differ(committed: Path) -> None:
    clean = checkout(committed)
    assert clean.changed == () and re.fullmatch("[0-9a-f]{7,40}", clean.commit) and str(clean) == clean.commit
    (committed / "results" / "old.md").write_text("2")
    assert checkout(committed, ignore=committed / "results") == clean
    assert checkout(committed).changed == ("results/old.md",)
    (committed / "new.py").touch()
    changed = checkout(committed, ignore=committed / "results")
    assert changed == Checkout(clean.commit, ("new.py",)) and str(changed) == f"{clean.commit}-dirty"
    (committed / "code.py").write_text("2")
    assert set(checkout(committed, ignore=Path("/elsewhere")).changed) == {"code.py", "new.py", "results/old.md"}


def test_without_git_or_inside_another_checkout_there_is_no_commit(committed: Path, tmp_path: Path) -> None:
    assert checkout(tmp_path) == checkout(committed / "results") == Checkout("no git checkout")


OTHERS = (
    "picture",
    "hosts-picture",
    "gpu-inputs",
    "box",
    "gpu",
)  # the last one measures, in its own frame (test_gpu.py)


def test_a_changed_checkout_is_refused_unless_the_record_says_so(
    committed: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.benchmarks.record.checkout", checkout)
    monkeypatch.setattr("tests.benchmarks.report.ROOT", committed)
    at = checkout(committed).commit
    assert begin("b", RecordConfig, [])[1].facts["commit"] == at
    (committed / "code.py").write_text("2")
    with pytest.raises(UsageError, match=rf"differs from its commit {at} in code.py.*--changed-checkout"):
        begin("b", RecordConfig, [])
    _, record = begin("b", RecordConfig, ["--changed-checkout"])
    record.add(Table(title="T", columns=["a"], rows=[["x"]]))
    page = (results / "b.md").read_text()
    assert f"- commit: `{at} and changes that no commit holds`" in page and "- changed_files: `code.py`" in page
    monkeypatch.setattr("tests.benchmarks.report.ROOT", committed.parent)
    assert begin("b", RecordConfig, [])[1].facts["commit"] == "no git checkout"


@pytest.mark.parametrize("bench", [name for name in BENCHES if name not in OTHERS])
def test_every_bench_refuses_before_its_work_begins(
    bench: str, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tests.benchmarks.record.checkout", lambda root, ignore: Checkout("abc", ("code.py",)))
    module, function = BENCHES[bench][0].split(":")
    run = getattr(importlib.import_module(module), function)
    with pytest.raises(UsageError, match=r"differs from its commit abc in code\.py"):
        run(NEEDED.get(bench, []))
    assert not results.exists() and capsys.readouterr().out == ""
    with pytest.raises(SystemExit):
        run(["--help"])
    assert "results/NAME.json and .md" in (text := " ".join(capsys.readouterr().out.split())) and "--changed-" in text


def test_a_record_is_a_document_and_a_page_after_each_table(results: Path) -> None:
    _, record = begin("x", RecordConfig, ["--name", "y"], ["numpy", "no-such-package"])
    record.facts["photos"] = 3
    record.add(Table(title="T", columns=["a", "b"], rows=[["x", 1.23456]], note="N"))
    first = json.loads((results / "y.json").read_text())
    assert first["versions"] == {"numpy": np.__version__, "no-such-package": "absent"} and first["photos"] == 3
    assert first["tables"][0]["rows"] == [["x", 1.23456]] and first["commit"] == "abc1234"
    record.add(Table(title="U", columns=["a"], rows=[]))
    page = (results / "y.md").read_text()
    assert "| x | 1.235 |" in page and "### U" in page and "`python -m tests.benchmarks x --name y`" in page
    assert record.end() == 0 and sorted(path.name for path in results.iterdir()) == ["y.json", "y.md"]


def test_places_of_this_machine_are_told_by_the_name_of_their_option() -> None:
    words = ["--data", "/a/b c", "--photos=/x", "build/sets", "--opencv-python", "/p/bin/python", "--rounds", "3"]
    told = ["--data", "DATA", "--photos=PHOTOS", "build/sets", "--opencv-python", "OPENCV_PYTHON", "--rounds", "3"]
    assert without_places(words) == told


def test_evidence_names_the_commit_of_this_checkout_or_none() -> None:
    assert evidence("c", ())["commit"] == str(checkout())
