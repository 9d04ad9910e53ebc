"""The demo is a list of ordinary commands: each is understood by its own verb; a folder of somebody else stays."""

import shlex

import pytest

from cluster.road.demo import empty_own_folder, steps
from pipeline.errors import UsageError
from testkit.command_lines import check


def test_every_step_is_a_command_that_its_verb_understands(tmp_path, monkeypatch):
    road = steps(tmp_path / "a folder with spaces")
    assert [step.argv[0] for step in road] == ["preprocess"] * 6 + ["pretrain"] * 3 + ["transfer"]
    assert [step.killed for step in road].index(True) == 6 and road[6].argv == road[7].argv
    for step in road:
        assert check(shlex.join(["focusvit", *step.argv]), monkeypatch)


def test_a_folder_of_somebody_else_is_never_emptied(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="no demo wrote"):
        empty_own_folder(tmp_path)
    assert (tmp_path / "thesis.txt").exists()
    own = tmp_path / "demo"
    empty_own_folder(own)
    (own / "runs").mkdir()
    empty_own_folder(own)
    assert not (own / "runs").exists()
