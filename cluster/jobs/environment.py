"""Which variables travel with a job, and which of them are secrets.

Plain ones go into Ray's runtime environment, which the dashboard shows and Ray's log files repeat. Secrets must not:
they travel as a file in the job's package, and every process of the job reads that file when it starts.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.secrets import has_secret

SECRETS_FILE = "focusvit-secrets.json"
SETUP_HOOK = "cluster.jobs.worker_log.start_worker"  # Ray calls it in every worker process before any task
JOB_VARIABLE = "FOCUSVIT_JOB"  # the name of the job, for its log lines and metrics

_PASSED = re.compile(r"MLFLOW_\w+|AWS_\w+|FSSPEC_\w+|NCCL_\w+|TQDM_\w+|RAY_TRAIN_\w+|HF_TOKEN|FOCUSVIT_DATA")
# These name files or profiles of the machine that submits.
_STAYS = {"AWS_CA_BUNDLE", "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"}
_SECRET_NAME = re.compile(r"PASSWORD|SECRET|TOKEN|CREDENTIAL|ACCESS_KEY|API_KEY|PRIVATE", re.IGNORECASE)

DEFAULTS = {
    "OMP_WAIT_POLICY": "PASSIVE",  # idle threads sleep instead of spinning
    "NO_ALBUMENTATIONS_UPDATE": "1",  # its import asks the network for a newer version otherwise
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "TQDM_MININTERVAL": "5",  # a job's log is a file: a progress line every 5 s, not ten a second
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # a checkpoint report is seen at once, not after 2 s
    "RAY_JOB_STOP_WAIT_TIME_S": "30",  # time to close the MLflow run before Ray kills the job
}


def is_secret(name: str, value: str) -> bool:
    """By its name, or because a secret stands in it, such as an address with a password."""
    return bool(_SECRET_NAME.search(name)) or has_secret(value)


def job_variables(environment: Mapping[str, str], extra: Iterable[str] = ()) -> tuple[dict[str, str], dict[str, str]]:
    """(plain, secret) variables of a job: ours, those of MLflow and the stores, and `extra` (NAME or NAME=VALUE).

    Raises UsageError for an extra NAME that is not set here, and for Ray's own token: the cluster has it already.
    """
    chosen = {name: value for name, value in environment.items() if _PASSED.fullmatch(name) and name not in _STAYS}
    for entry in extra:
        name, has_value, value = entry.partition("=")
        if not has_value and name not in environment:
            raise UsageError(f"--env {name}: no such variable here. Set it, or write --env {name}=VALUE.")
        if name.startswith("RAY_AUTH"):
            raise UsageError(f"--env {name}: Ray's token stays outside jobs; the nodes of the cluster have their own.")
        chosen[name] = value if has_value else environment[name]
    merged = {**DEFAULTS, **chosen}
    plain = {name: value for name, value in sorted(merged.items()) if not is_secret(name, value)}
    return plain, {name: value for name, value in sorted(merged.items()) if name not in plain}


def load_secrets() -> None:
    """Read the secrets of this job, if it has any, into the environment. Runs in every process of the job."""
    path = Path(__file__).resolve().parents[2] / SECRETS_FILE
    if path.is_file():
        os.environ.update(json.loads(path.read_text()))
