"""The paths and URIs in a verb's arguments: a job runs elsewhere, so each must mean the same there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from focusvit.box.names import names
from pipeline.errors import UsageError
from pipeline.secrets import has_secret

READ = set(
    "--source --data --checkpoint --onnx --init-from --distill.teacher --teacher --checksums --tasks-root".split()
)
CHECKPOINTS = {"--checkpoint", "--init-from", "--teacher", "--distill.teacher"}
NAMED = {"--task", "--score-on"}  # NAME=PLACE
WRITE = {"--out", "--run-dir", "--confusion"}
TRACKED = ("pretrain", "finetune", "transfer")  # verbs that write to MLflow
SPREAD = ("preprocess", "pretrain", "finetune", "transfer")  # verbs whose work runs on every node
NEEDS_OUT = ("transfer", "report")  # verbs that write into the current folder when no --out is given
LOOPBACK = {"127.0.0.1", "localhost", "::1", "0.0.0.0"}


@dataclass(frozen=True)
class Place:
    """One path or URI of a command: which option names it, and whether the command writes there."""

    option: str
    uri: str
    mode: Literal["read", "write"]


def places_of(argv: Sequence[str]) -> list[Place]:
    """The places that the options of a verb's command line name. NAME=PATH values give their path."""
    found = []
    for option, value in _options(argv):
        if option in NAMED and "=" in value:
            found.append(Place(option, value.split("=", 1)[1], "read"))
        elif option in READ:
            found.append(Place(option, value, "read"))
        elif option in WRITE:
            found.append(Place(option, value, "write"))
    return found


def tracking_uri_of(argv: Sequence[str], variable: str | None) -> str | None:
    """The MLflow store of a tracked verb: its option, else the variable; None for verbs that track nothing."""
    if not argv or argv[0] not in TRACKED:
        return None
    named = [value for option, value in _options(argv) if option == "--tracking-uri"]
    return named[-1] if named else variable or ""


def check_for_job(argv: Sequence[str], tracking_uri: str | None) -> None:
    """Raises UsageError for whatever would mean something else inside the cluster."""
    for place in places_of(argv):
        if place.option in CHECKPOINTS and place.uri in names():
            continue  # a model that travels with the code
        if "://" not in place.uri and not place.uri.startswith("/"):
            raise UsageError(
                f"{place.option} {place.uri} is relative, and a job runs in a folder of its own that is removed "
                f"afterwards. Write the absolute path as the nodes see it, or an s3:// or gs:// URI."
            )
        if place.uri.startswith("file://"):
            raise UsageError(f"{place.option} {place.uri}: write the absolute path, without file://.")
    if argv[0] in NEEDS_OUT and not any(option == "--out" for option, _ in _options(argv)):
        raise UsageError(f"{argv[0]} without --out would write into the folder of the job. Name an absolute --out.")
    for value in argv[1:]:
        if has_secret(value):
            raise UsageError(
                "an argument holds a password, and the dashboard shows the command of a job. Use variables instead: "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or those of the store; submit passes them on."
            )
        if _is_local_file(value):
            raise UsageError(f"{value} is a path of this machine. Write the absolute path as the nodes see it.")
    if tracking_uri is not None:
        _check_tracking_for_job(argv[0], tracking_uri)


def _check_tracking_for_job(verb: str, uri: str) -> None:
    if not uri:
        raise UsageError(
            f"{verb} would write its MLflow store into the folder of the job, which is removed afterwards. Set "
            "MLFLOW_TRACKING_URI=http://HOST:5000 to a server that the cluster reaches."
        )
    if uri.startswith("sqlite:") and not uri.startswith("sqlite:////"):
        raise UsageError(f"the tracking store {uri} is relative: write sqlite:////absolute/path, or use a server.")


def warn_loopback(jobs_url: str, uris: Sequence[str]) -> list[str]:
    """URIs that name this machine, while the cluster is another one."""
    if urlsplit(jobs_url).hostname in LOOPBACK:
        return []
    return [uri for uri in uris if "://" in uri and urlsplit(uri).hostname in LOOPBACK]


def _options(argv: Sequence[str]) -> list[tuple[str, str]]:
    """(option, value) pairs; an option with several values gives one pair for each. --run_dir is --run-dir, as it is
    for the verbs."""
    pairs, option = [], ""
    for token in argv[1:]:
        if token.startswith("--"):
            option, has_value, value = token.partition("=")
            option = option.replace("_", "-")
            if has_value:
                pairs.append((option, value))
                option = ""
        elif option:
            pairs.append((option, token))
    return pairs


def _is_local_file(value: str) -> bool:
    """A relative path that exists here: surely meant as a file, surely absent there."""
    if value.startswith(("./", "../", "~")):
        return True
    return "/" in value and not value.startswith(("/", "-")) and "://" not in value and Path(value).exists()
