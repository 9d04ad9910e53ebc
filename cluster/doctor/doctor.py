"""`focusvit doctor`: what is wrong with this machine or cluster, and the fix of each, before a run finds out."""

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pipeline.commandline import parse

from .finding import as_json, as_text, num_broken
from .machine import machine_findings
from .services import check_head, check_path, check_tracking

PORTS = {"Ray cluster": 6379, "Ray dashboard and jobs": 8265, "MLflow": 5000}


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """Check this machine, the MLflow store, and, when named, a Ray head and paths."""

    jobs_address: str | None = None
    """Dashboard of a Ray head to check, for example http://HEAD:8265."""
    tracking_uri: str | None = None
    """MLflow store to check; default: MLFLOW_TRACKING_URI, else ./mlflow.db."""
    num_nodes: int = 1
    """Nodes that runs will use: more than one needs an MLflow server and shared storage."""
    paths: tuple[str, ...] = ()
    """Folders and URIs that runs will read or write."""
    json: bool = False
    """Print one JSON object instead of the table."""

    def __post_init__(self) -> None:
        if self.num_nodes < 1:
            raise ValueError(f"--num-nodes is {self.num_nodes}: use 1 or more.")


def main(argv: list[str]) -> int:
    """Exit code 1 when something is broken; warnings alone exit with 0."""
    config = parse(DoctorConfig, argv, prog="focusvit doctor")
    findings = machine_findings([Path.cwd(), Path(tempfile.gettempdir())], PORTS)
    named = config.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    findings += check_tracking(named or f"sqlite:///{Path.cwd() / 'mlflow.db'}", config.num_nodes)
    findings += [check_path("", place) for place in config.paths]
    if data := os.environ.get("FOCUSVIT_DATA"):
        findings.append(check_path("FOCUSVIT_DATA", data))
    if config.jobs_address is not None:
        findings += check_head(config.jobs_address)
    sys.stdout.write(as_json(findings) + "\n" if config.json else as_text(findings))
    return 1 if num_broken(findings) else 0
