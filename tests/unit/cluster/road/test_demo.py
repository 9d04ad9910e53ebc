"""The demo is a list of ordinary commands: each is understood by its own verb; a folder of somebody else stays."""

import shlex

import pytest

from cluster.road import demo
from cluster.road.demo import empty_own_folder, kill_after_checkpoint, steps
from pipeline.errors import UsageError
from testkit.command_lines import check


def test_every_step_is_a_command_that_its_verb_understands(tmp_path, monkeypatch):
    road = steps(tmp_path / "a folder with spaces")
    assert [step.argv[0] for step in road] == ["preprocess"] * 6 + ["pretrain"] * 3 + ["transfer"]
    assert [step.killed for step in road].index(True) == 6 and road[6].argv == road[7].argv
    for step in road:
        assert check(shlex.join(["focusvit", *step.argv]), monkeypatch)


@pytest.mark.parametrize(("cpus", "workers"), [(1, "1"), (2, "2"), (64, "2")])
def test_one_cpu_is_enough(cpus, workers, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "usable_cpus", lambda: cpus)
    trainings = [step.argv for step in steps(tmp_path) if step.argv[0] == "pretrain"]
    assert [argv[argv.index("--workers") + 1] for argv in trainings] == [workers] * 3


def test_a_training_that_ends_before_it_is_killed_is_told_in_words(tmp_path):
    with pytest.raises(UsageError, match=r"ended by itself; see .*demo-killed\.log"):
        kill_after_checkpoint(["pretrain", "demo"], tmp_path / "runs" / "demo")
    assert "--data" in (tmp_path / "runs" / "demo-killed.log").read_text()


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
