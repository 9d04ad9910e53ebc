"""What a person meets first: help, an unknown verb, an error in one paragraph."""

import os
import subprocess
import sys

import pytest

from focusvit.cli import VERBS, main
from pipeline.errors import DataError, UsageError
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
        (["pretrain", "demo", "--data", "d", "--run-dir", "r", "--optim.lrr", "1"], VERBS, "optim.lr"),
        (["pretrain", "demo", "--data", "d", "--run-dir", "r", "--trackin-uri", "x"], VERBS, "tracking_uri"),
        (["submit", "--jobs-address", "http://h:1", "--", "transfr"], VERBS, "transfer"),
    ],
)
def test_a_word_that_is_not_known_brings_the_one_that_was_meant(capsys, argv, verbs, meant):
    assert main(argv, verbs=verbs) == 2
    said = capsys.readouterr().err
    assert f"Did you mean '{meant}'?" in said and "Traceback" not in said


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
