"""Command lines in documents and manifests, given to the parser of the program that they name. Nothing is run."""

import importlib
import shlex

import click
import pytest

from focusvit.cli import VERBS
from focusvit.recipes.small import debug
from focusvit.runs.checkpoint_record import Checkpoint
from focusvit.runs.config_json import to_json
from pipeline import commandline


class ParsedSignal(Exception):  # noqa: N818 - it is the wished end, not an error
    """The command line was understood, and the command would now begin."""


def check_ray(words: list[str]) -> None:
    """`ray start ...`, `ray job submit ...`: click refuses what Ray's own command would refuse."""
    from ray.scripts.scripts import cli

    _click(cli, words[1:])


def check_mlflow(words: list[str]) -> None:
    from mlflow.cli import cli

    _click(cli, words[1:])


def _click(command: click.Command, words: list[str]) -> None:
    context = command.make_context(command.name, list(words), resilient_parsing=False)
    rest = [*context._protected_args, *context.args] if hasattr(context, "_protected_args") else context.args
    if isinstance(command, click.Group):
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None, f"no such command: {name}"
        _click(found, rest)


def check_focusvit(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The verb exists and its parser takes every option; `submit` also checks the command that it would send."""
    assert words[1] in VERBS, f"focusvit has no verb '{words[1]}'"
    real = commandline._cli

    def parse_and_stop(config, argv, prog, default, **options):
        result = real(config, argv, prog, default, **options)
        if options.get("return_unknown_args"):
            return result
        raise ParsedSignal

    with monkeypatch.context() as patch:
        patch.setattr(commandline, "_cli", parse_and_stop)
        # finetune reads its checkpoint before the rest of its options.
        start = to_json(debug())
        patch.setattr(
            "cluster.train.launch.quick_record", lambda uri, patch: Checkpoint(config=start, model=start["model"])
        )
        module, function = VERBS[words[1]][0].split(":")
        with pytest.raises(ParsedSignal):
            getattr(importlib.import_module(module), function)(words[2:])
    if words[1] == "submit":
        check_focusvit(["focusvit", *words[words.index("--") + 1 :]], monkeypatch)


def check(command: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Check one command if a program of ours is in it; False when it is another program's."""
    words = shlex.split(command, comments=True)
    while words and "=" in words[0] and not words[0].startswith("-"):
        words = words[1:]  # VARIABLE=value before the command
    if words[:3] == ["python", "-m", "cluster.jobs.job"]:
        words = ["focusvit", *words[3:]]
    if words[:3] == ["python", "-m", "mlflow"]:
        words = words[2:]
    if not words or words[0] not in ("ray", "mlflow", "focusvit"):
        return False
    if words[0] == "ray":
        check_ray(words)
    elif words[0] == "mlflow":
        check_mlflow(words)
    else:
        check_focusvit(words, monkeypatch)
    return True
