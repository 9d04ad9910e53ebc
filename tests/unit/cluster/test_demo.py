"""The demo is a list of ordinary commands: each is understood by its own verb; a user's folder is only mirrored."""

import shlex

import pytest

from cluster.demo import DemoConfig, _empty_own_folder, _link_images, steps
from pipeline.errors import UsageError
from testkit.command_lines import check


@pytest.mark.parametrize("source", [None, "images"])
def test_every_step_is_a_command_that_its_verb_understands(tmp_path, monkeypatch, source):
    config = DemoConfig(source=None if source is None else tmp_path / source)
    road = steps(config, tmp_path / "a folder with spaces")
    verbs = [step.argv[0] for step in road]
    assert verbs[-6:] == ["show", "pretrain", "evaluate", "transfer", "finetune", "report"]
    assert verbs.count("preprocess") == (4 if source is None else 2)
    for step in road:
        assert check(shlex.join(["focusvit", *step.argv]), monkeypatch)


def test_class_folders_are_divided_once_and_for_all(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "own" / name).mkdir(parents=True)
        for number in range(50):
            (tmp_path / "own" / name / f"it's {number}.jpg").write_bytes(b"x")
    for out in ("a", "b"):
        _link_images(tmp_path / "own", tmp_path / out)
    listed = [sorted(p.relative_to(tmp_path / out).as_posix() for p in (tmp_path / out).rglob("*.jpg")) for out in "ab"]
    assert listed[0] == listed[1] and len(listed[0]) == 100
    assert 5 <= sum(path.startswith("val/") for path in listed[0]) <= 40


def test_train_and_val_folders_are_taken_as_they_are(tmp_path):
    for split in ("train", "val"):
        (tmp_path / "own" / split / "cat").mkdir(parents=True)
    _link_images(tmp_path / "own", tmp_path / "out")
    assert (tmp_path / "out" / "val" / "cat").is_dir()


@pytest.mark.parametrize("name", ["missing", "empty", "one class"])
def test_a_source_without_classes_is_refused_in_words(tmp_path, name):
    folder = tmp_path / name
    if name != "missing":
        folder.mkdir()
    if name == "one class":
        (folder / "cat").mkdir()
        (folder / "cat" / "a.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match="class"):
        _link_images(folder, tmp_path / "out")


def test_a_folder_of_somebody_else_is_never_emptied(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="no demo wrote"):
        _empty_own_folder(tmp_path)
    assert (tmp_path / "thesis.txt").exists()
    own = tmp_path / "demo"
    _empty_own_folder(own)
    (own / "runs").mkdir()
    _empty_own_folder(own)
    assert not (own / "runs").exists()
