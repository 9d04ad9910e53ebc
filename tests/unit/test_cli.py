"""What a person meets first: help, an unknown verb, an error in one paragraph."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from cluster.train.launch import pretrain_options
from focusvit.cli import VERBS, main
from focusvit.recipes.small import recipe
from focusvit.runs.config_json import flatten, to_json
from pipeline.errors import DataError, UsageError
from testkit.checkout import ROOT
from tests.benchmarks.__main__ import BENCHES


def test_help_names_every_verb(capsys):
    assert main([]) == 2 and main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(verb in shown for verb in VERBS)


@pytest.mark.parametrize(
    ("verb", "usage"),
    [("predict", "IMAGE ..."), ("look", "IMAGE ..."), ("report", "RUN ..."), ("info", "DIR"), ("verify", "DIR"),
     ("remap", "DIR"), ("show", "DIR"), ("pretrain", "RECIPE"), ("cost", "RECIPE|CHECKPOINT"), ("replay", "DUMP")],
)  # fmt: skip
def test_help_says_what_a_verb_is_given(verb, usage, capsys):
    """A type (`[STR [STR ...]]`) would tell nobody."""
    with pytest.raises(SystemExit) as left:
        main([verb, "--help"])
    first = capsys.readouterr().out.partition("\n\n")[0]
    assert left.value.code == 0 and f" {usage}" in first and "STR [" not in first and not first.endswith(" STR")


@pytest.mark.parametrize(
    ("argv", "verbs", "meant"),
    [
        (["pretrian"], VERBS, "pretrain"),
        (["loadr"], BENCHES, "loader"),
        (["pretrain", "dmo", "--data", "d", "--run-dir", "r"], VERBS, "demo"),
        (["submit", "--jobs-address", "http://h:1", "--", "transfr"], VERBS, "transfer"),
    ],
)
def test_a_word_that_is_not_known_brings_the_one_that_was_meant(capsys, argv, verbs, meant):
    assert main(argv, verbs=verbs) == 2
    said = capsys.readouterr().err
    assert f"Did you mean '{meant}'?" in said and "Traceback" not in said


HEAVY = "torch ray mlflow cv2 sklearn numba scipy pyarrow pandas matplotlib albumentations onnxruntime"
MISTAKES = {  # what is typed -> what the answer must name
    "pretrian": "Did you mean 'pretrain'?",
    "pretrain demo --data d --run-dir r --data.eval-splt val": "--data.eval-split STR",
    "pretrain demo --data d --run-dir r --eval-split val": "--data.eval-split STR",
    "pretrain demo --data d --run-dir r --trackin-uri x": "--tracking-uri",
    "pretrain demo --data d --run-dir r --optim.lr fast": "--optim.lr",
    "pretrain demo --data d --run-dir r --workers many": "--workers must be a number",
    "pretrain demo --run-dir r": "--data STR",
    "pretrain --data d --run-dir r": "tiny_imagenet_cpu",
    "pretrain": "tiny_imagenet_cpu",
    "pretrain dmo --data d --run-dir r": "Did you mean 'demo'?",
    "cost tiny_imagenet_cpuu": "Did you mean 'tiny_imagenet_cpu'?",
    "finetune --checkpoint no-such-run --data d --run-dir r": "no-such-run",
    "finetune --checkpoint c --data d": "--run-dir STR",
    "pretrain demo --data no-such-set --run-dir r": "no-such-set holds no data set",
    "finetune --checkpoint focusvit-tiny --data no-such-set --run-dir r": "no-such-set holds no data set",
    "evaluate --checkpoint c": "--data STR",
    "evaluate --checkpoint focusvit-tiny --data no-such-set": "no-such-set holds no data set",
    "evaluate --checkpoint no-such-run --data d": "No checkpoint at",
    "export --checkpoint no-such-run --out file.onnx": "No checkpoint at",
    "train --minute 3 .": "there is no option --minute. Did you mean '--minutes'?",
    "predict --checkpont c photo.jpg": "there is no option --checkpont. Did you mean '--checkpoint'?",
    "predict photo.jpg --checkpont c": "--checkpoint STR",
    "export --checkpoint c --out file.txt": "end the name with .onnx or .pt2",
    "look photo.jpg": "--checkpoint STR",
    "transfer --checkpoint c --suite qick": "Did you mean 'quick'?",
    "preprocess --source s": "--out STR",
    "verify": "DIR",
    "show --out sheet.png": "DIR",
    "remap d --out d": "--out is the data set itself",
    "report --outt x": "--out STR",
    "replay": "DUMP",
    "info": "DIR",
}


@pytest.fixture(scope="module")
def answers():
    """Exit code and text of each verb's help and of each mistake, in one process in which nothing heavy can load."""
    typed = [*(f"{verb} --help" for verb in VERBS), "pretrain demo --help", "recipes", *MISTAKES]
    code = f"""
import contextlib, io, json, sys
class Ban:
    def find_spec(self, name, path=None, target=None):
        assert name not in {HEAVY.split()}, f"{{name}} is loaded"
sys.meta_path.insert(0, Ban())
from focusvit.cli import main
answers = {{}}
for typed in {typed}:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = main(typed.split())
        except SystemExit as left:
            code = left.code
    answers[typed] = code, " ".join(said.getvalue().replace("│", " ").split())
print(json.dumps(answers))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("verb", VERBS)
def test_help_loads_nothing_heavy(answers, verb):
    code, said = answers[f"{verb} --help"]
    assert code == 0 and "usage: focusvit" in said


@pytest.mark.parametrize("typed", MISTAKES)
def test_a_mistake_is_named_before_anything_heavy_loads(answers, typed):
    code, said = answers[typed]
    assert code == 2 and MISTAKES[typed] in said


@pytest.mark.parametrize("typed", ["pretrain --help", "pretrain demo --help", "finetune --help"])
def test_help_lists_every_key_of_the_recipe(answers, typed):
    keys = flatten(to_json(recipe("demo")))
    assert len(keys) > 60
    for key in keys:
        assert f"--{key.replace('_', '-')}" in answers[typed][1]


def test_the_help_of_a_recipe_shows_its_own_values(answers):
    assert f"(default: {recipe('demo').optim.lr})" in answers["pretrain demo --help"][1]


def test_an_option_that_has_the_name_of_a_recipe_is_no_recipe():
    found = pretrain_options("--data d --run-name debug --run-dir r tiny_imagenet --epochs 3".split())
    assert (found.recipe, found.run_name) == ("tiny_imagenet", "debug")
    assert found.training == dataclasses.replace(recipe("tiny_imagenet"), epochs=3)


@pytest.mark.parametrize(("error", "code"), [(UsageError, 2), (DataError, 1)])
def test_errors_become_one_paragraph_and_an_exit_code(monkeypatch, capsys, error, code):
    import focusvit.cli as cli

    def fail(argv):
        raise error("value 7 in place P: turn knob K")

    monkeypatch.setitem(cli.VERBS, "demo", ("test_target:main", ""))
    monkeypatch.setattr(cli, "_check_identity", lambda: None)
    monkeypatch.setitem(sys.modules, "test_target", type("Module", (), {"main": staticmethod(fail)}))
    assert main(["demo"]) == code
    assert capsys.readouterr().err == "focusvit demo: value 7 in place P: turn knob K\n"


def test_a_foreign_package_of_the_same_name_is_named(tmp_path):
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").write_text("")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from focusvit.cli import main; main(['show'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode != 0 and "another package called 'pipeline' is imported first" in done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("argv", [["--help"], ["preprocess", "--help"]])
def test_a_reader_that_goes_away_ends_a_verb_quietly(argv, unbuffered):
    reader, writer = os.pipe()
    os.close(reader)
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-m", "focusvit.cli", *argv]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=environment)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_connection_that_breaks_is_no_reader_that_goes_away(monkeypatch):
    import focusvit.cli as cli

    def lose_the_server(argv):
        raise BrokenPipeError

    monkeypatch.setitem(cli.VERBS, "demo", ("test_target:main", ""))
    monkeypatch.setattr(cli, "_check_identity", lambda: None)
    monkeypatch.setitem(sys.modules, "test_target", type("Module", (), {"main": staticmethod(lose_the_server)}))
    with pytest.raises(BrokenPipeError):
        main(["demo"])


def test_a_table_has_columns_as_wide_as_their_widest_cell() -> None:
    from pipeline.commandline import aligned

    rows = [("name", "value"), ("a", 1), ("longer", None)]
    assert aligned(rows) == ["name    value", "a       1", "longer  None"]
    assert aligned(rows, right=True) == ["name    value", "a           1", "longer   None"]
