"""The one console command. Each verb names its target as a string, so that `focusvit --help` loads nothing heavy."""

import contextlib
import importlib
import os
import select
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Verbs = dict[str, tuple[str, str]]  # verb -> (module:function, what it does)
VERBS: Verbs = {
    "demo": ("cluster.road.demo:main", "what this project does, in a few minutes, with one page at its end"),
    "train": ("cluster.road.train:main", "one command from a folder of photos to a trained model"),
    "preprocess": ("cluster.joined:preprocess_main", "images -> WebDataset shards with superpixel maps, on Ray"),
    "verify": ("cluster.joined:verify_main", "re-check every shard; --repair rebuilds the damaged ones"),
    "remap": ("cluster.joined:remap_main", "the same data set with superpixels of other settings"),
    "info": ("focusvit.predict.info:main", "what a data set or a checkpoint holds"),
    "show": ("pipeline.care.contact_sheet:main", "a contact sheet of a data set with superpixel borders"),
    "pretrain": ("cluster.train.pretrain:pretrain_main", "train a recipe on shards with Ray Train"),
    "finetune": ("cluster.train.pretrain:finetune_main", "the same loop from a checkpoint with a new head"),
    "replay": ("focusvit.train.replay:main", "run a step that was not finite once more and say where it broke"),
    "evaluate": ("focusvit.predict.evaluate:main", "top-1 and top-5 of a checkpoint, at any token budgets"),
    "transfer": ("cluster.train.transfers:main", "kNN, linear probe and more from a checkpoint"),
    "recipes": ("focusvit.recipes.small:main", "what there is to train: hardware, time and score of each recipe"),
    "models": ("focusvit.recipes.models:main", "what there is to start from: the models that come with the package"),
    "cost": ("focusvit.recipes.cost:main", "what a recipe or checkpoint costs here, relative to the plain ViT"),
    "report": ("transfer.report.report:main", "one table from finished runs"),
    "predict": ("focusvit.predict.predict:main", "top classes and overlays of image files"),
    "export": ("focusvit.predict.export:main", "a checkpoint as an ONNX file that predicts without torch"),
    "look": ("focusvit.predict.look:main", "pictures of what a checkpoint is given and where it looks"),
    "ui": ("cluster.ui:main", "the MLflow UI on the right store"),
    "submit": ("cluster.jobs.submit:main", "run a verb as a job of a Ray cluster and follow it"),
    "jobs": ("cluster.jobs.watch:main", "list, watch and stop the jobs of a Ray cluster"),
    "doctor": ("cluster.doctor.doctor:main", "what is wrong with this machine or cluster, and its fix"),
}
OPTIONS = {
    "train": "cluster.road.options:TrainFolderConfig",
    "preprocess": "pipeline.options:PreprocessConfig",
    "verify": "pipeline.options:VerifyConfig",
    "remap": "pipeline.options:RemapConfig",
    "info": "focusvit.options:InfoConfig",
    "show": "pipeline.options:ShowConfig",
    "pretrain": "cluster.train.launch:pretrain_options",
    "finetune": "cluster.train.launch:finetune_options",
    "replay": "focusvit.options:ReplayConfig",
    "evaluate": "focusvit.options:EvaluateConfig",
    "transfer": "cluster.train.launch:TransferLaunch",
    "cost": "focusvit.recipes.small:cost_options",
    "report": "transfer.options:ReportConfig",
    "predict": "focusvit.options:PredictConfig",
    "export": "focusvit.options:ExportConfig",
    "look": "focusvit.options:LookConfig",
}
"""verb -> what reads its options where the verb's own module loads torch, OpenCV and such: a dataclass or function"""


def _usage(program: str, verbs: Verbs) -> str:
    width = max(map(len, verbs)) + 2
    rows = "\n".join(f"  {verb:<{width}} {text}" for verb, (_, text) in verbs.items())
    return f"usage: {program} VERB ...\n\n{rows}\n\n'{program} VERB --help' shows the options of a verb."


def _check_identity() -> None:
    """The packages have generic names: make sure that the ones found first are this checkout's own."""
    root = Path(__file__).resolve().parent.parent
    for name in ("pipeline", "transfer", "cluster"):
        found = importlib.import_module(name).__file__ or "nowhere"
        if Path(found).resolve().parent.parent != root:
            raise SystemExit(
                f"focusvit: another package called '{name}' is imported first, from {found}, instead of {root / name}. "
                f"Uninstall that package from this environment, or run from {root}."
            )


def main(
    argv: list[str] | None = None, program: str = "focusvit", verbs: Verbs = VERBS,
    options: Mapping[str, str] = OPTIONS,
) -> int:  # fmt: skip
    """Run one verb of a program: ours, or another one with verbs of its own.

    Exit codes: 0 done, 1 the work found a problem, 2 wrong usage, 130 interrupted, 141 nobody reads on (`| head`).
    """
    try:
        try:
            code = _run(sys.argv[1:] if argv is None else argv, program, verbs, options)
        except SystemExit:  # after --help
            sys.stdout.flush()
            raise
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        if not _silence_unread():  # a connection of the work broke
            raise
        return 141


@contextlib.contextmanager
def _without_secrets() -> Iterator[None]:
    """Whatever a verb shows goes through the one function that masks: addresses come from people, as they are."""
    from pipeline.secrets import MaskedStream

    def show_bug(*error: Any) -> None:
        MaskedStream(sys.stderr).write("".join(traceback.format_exception(*error)))

    sys.excepthook = show_bug
    with contextlib.redirect_stdout(MaskedStream(sys.stdout)), contextlib.redirect_stderr(MaskedStream(sys.stderr)):
        yield


def _silence_unread() -> bool:
    """Whether stdout or stderr has lost its reader; what is written there from now on goes nowhere.

    SIGPIPE's default action would end us the Unix way, but for a socket of Ray or MLflow that closes as well.
    """
    poll = select.poll()
    for stream in (sys.stdout, sys.stderr):
        try:
            poll.register(stream.fileno(), 0)  # an error is told unasked
        except (OSError, ValueError):  # no file behind it: a test's buffer
            continue
    unread = [descriptor for descriptor, _ in poll.poll(0)]
    for descriptor in unread:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
    return bool(unread)


def _run(arguments: list[str], program: str, verbs: Verbs, options: Mapping[str, str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(_usage(program, verbs) + "\n")
        return 0 if arguments else 2
    verb, rest = arguments[0], arguments[1:]
    if verb == "--version":
        sys.stdout.write(f"focusvit {importlib.import_module('focusvit').__version__}\n")
        return 0
    _check_identity()
    from pipeline.errors import DataError, UsageError, did_you_mean

    if verb not in verbs:
        sys.stderr.write(f"{program}: unknown verb '{verb}'.{did_you_mean(verb, verbs)}\n{_usage(program, verbs)}\n")
        return 2
    # Before torch or OpenCV load: idle threads must sleep, and albumentations must not ask the network for a version.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    with _without_secrets():
        try:
            if verb in options:  # --help and a mistake are answered before anything heavy loads
                _read(options[verb], rest, f"{program} {verb}")
            return _named(verbs[verb][0])(rest)
        except (UsageError, DataError) as error:
            sys.stderr.write(f"{program} {verb}: {error}\n")
            return 2 if isinstance(error, UsageError) else 1
        except KeyboardInterrupt:
            sys.stderr.write(f"{program} {verb}: interrupted; run the same command again to go on\n")
            return 130


def _named(place: str) -> Any:
    """What 'module:name' names."""
    module, name = place.split(":")
    return getattr(importlib.import_module(module), name)


def _read(options: str, argv: list[str], program: str) -> None:
    """Read the options of a verb, which it will do again, by its dataclass or by a function of its own; see that the
    checkpoint and the data that they name are there."""
    from pipeline.commandline import parse

    from .options import check_places

    found = _named(options)
    check_places(parse(found, argv, prog=program) if isinstance(found, type) else found(argv))


if __name__ == "__main__":
    raise SystemExit(main())
