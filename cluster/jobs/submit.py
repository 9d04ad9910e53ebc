"""`focusvit submit`: a verb as a job of a Ray cluster, followed like a local command."""

import dataclasses
import json
import os
import secrets
import shlex
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.connection import connect, jobs_url
from focusvit.cli import VERBS
from pipeline.commandline import parse
from pipeline.errors import DataError, UsageError, did_you_mean, last_line
from pipeline.io.json_text import json_text
from pipeline.secrets import masked

from .environment import JOB_VARIABLE, SECRETS_FILE, SETUP_HOOK, job_variables
from .follow import follow
from .job import SPEC_FILE, JobSpec
from .package import checkout_root, code_files, fingerprint, stage
from .places import check_for_job, places_of, tracking_uri_of, warn_loopback

# These start, serve or watch something on the machine of the person who types them.
LOCAL_VERBS = ("submit", "jobs", "ui", "doctor", "demo")
USAGE = "usage: focusvit submit --jobs-address http://HEAD:8265 [options] -- VERB ..."


@dataclass(frozen=True, kw_only=True)
class SubmitConfig:
    """Run a verb on a Ray cluster; the command stands after --: focusvit submit ... -- preprocess --source ..."""

    jobs_address: str | None = None
    """Dashboard of the head, for example http://HEAD:8265; default: RAY_API_SERVER_ADDRESS."""
    detach: bool = False
    """Return as soon as the job is accepted instead of following the job to its end and exiting with its code."""
    dry_run: bool = False
    """Print the exact job and send nothing."""
    name: str | None = None
    """Name of the job; default: verb, time and four random characters."""
    env: tuple[str, ...] = ()
    """More variables for the job: NAME to pass this machine's value, or NAME=VALUE."""
    check_nodes: bool = True
    """Compare code, versions, CPUs and storage of all nodes before the work starts."""
    python: str = "python"
    """Interpreter on the nodes that has the packages."""
    entrypoint_cpus: float = 0
    """CPUs to reserve for the driver of the job, beside those of its tasks."""

    def __post_init__(self) -> None:
        if self.entrypoint_cpus < 0:
            raise ValueError(f"--entrypoint-cpus is {self.entrypoint_cpus}: use 0 or more.")


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that is sent, except the files themselves."""

    name: str
    entrypoint: str
    spec: JobSpec
    plain: dict[str, str]
    secret: dict[str, str]
    num_cpus: float = 0

    def runtime_env(self, working_dir: str) -> dict[str, Any]:
        """Ray's runtime environment. Secrets are not in it: Ray shows and logs it."""
        variables = {**self.plain, JOB_VARIABLE: self.name}
        return {"working_dir": working_dir, "env_vars": variables, "worker_process_setup_hook": SETUP_HOOK}

    def extra_files(self) -> dict[str, bytes]:
        files = {SPEC_FILE: self.spec.encode()}
        if self.secret:
            files[SECRETS_FILE] = json.dumps(self.secret).encode()
        return files


def make_job(config: SubmitConfig, argv: list[str], root: Path) -> Job:
    """The job of one command. Raises UsageError for what cannot work on a cluster."""
    verb = argv[0]
    tracking = tracking_uri_of(argv, os.environ.get("MLFLOW_TRACKING_URI"))
    check_for_job(argv, tracking)
    plain, secret = job_variables(os.environ, config.env)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return Job(
        name=config.name or f"{verb}-{stamp}-{secrets.token_hex(2)}",
        entrypoint=shlex.join([config.python, "-m", "cluster.jobs.job", *argv]),
        spec=JobSpec(fingerprint=fingerprint(root), tracking_uri=tracking, check_nodes=config.check_nodes),
        plain=plain,
        secret=secret,
        num_cpus=config.entrypoint_cpus,
    )


def main(argv: list[str]) -> int:
    """Exit code: that of the job when it is followed, 0 when it is detached."""
    own, command = _split(argv)
    config = parse(SubmitConfig, own, prog="focusvit submit")
    _check_verb(command)
    url = jobs_url(config.jobs_address)
    # The copy is made first and described from itself: the checkout may change while this runs.
    with tempfile.TemporaryDirectory(prefix="focusvit-submit-") as folder:
        copy = Path(folder)
        stage(checkout_root(), copy)
        job = make_job(config, command, copy)
        uris = [place.uri for place in places_of(command)] + [job.spec.tracking_uri or ""]
        for uri in warn_loopback(url, uris):
            sys.stderr.write(f"warning: {uri} names this machine; inside the cluster it means each node itself\n")
        sys.stderr.write(_describe(job, url, copy))
        if config.dry_run:
            sys.stdout.write(json_text(_shown(job), indent=2) + "\n")
            return 0
        client = connect(url)
        for name, content in job.extra_files().items():
            (copy / name).write_bytes(content)
        _send(client, job, folder)
    sys.stderr.write(f"submitted: {job.name}\n")
    if config.detach:
        sys.stderr.write(f"watch it: focusvit jobs logs {job.name} --follow --jobs-address {url}\n")
        sys.stdout.write(job.name + "\n")
        return 0
    return follow(client, job.name, url)


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    if "--" not in argv:
        if any(token in ("-h", "--help") for token in argv):
            return argv, []
        raise UsageError(f"no command after --. {USAGE}")
    cut = argv.index("--")
    return argv[:cut], argv[cut + 1 :]


def _check_verb(command: list[str]) -> None:
    if not command:
        raise UsageError(f"no command after --. {USAGE}")
    if command[0] not in VERBS:
        near = did_you_mean(command[0], VERBS)
        raise UsageError(f"unknown verb '{command[0]}' after --.{near} The verbs are: {', '.join(VERBS)}.")
    if command[0] in LOCAL_VERBS:
        raise UsageError(f"'{command[0]}' serves the machine on which it is typed: run it without submit.")


def _send(client: Any, job: Job, folder: str) -> None:
    try:
        client.submit_job(
            entrypoint=job.entrypoint,
            submission_id=job.name,
            runtime_env=job.runtime_env(folder),
            metadata={"focusvit_verb": job.entrypoint.split(" -m cluster.jobs.job ")[1].split()[0]},
            entrypoint_num_cpus=job.num_cpus or None,
        )
    except (RuntimeError, OSError) as error:  # an answer that refuses, a head that went away during the upload
        text = str(error)
        if "already" in text:
            raise UsageError(
                f"a job named {job.name} is known to the cluster already: choose another --name."
            ) from None
        if "413" in text or "too large" in text.lower():
            raise UsageError(
                "the head refuses the code as too large: `focusvit submit --dry-run` names its size."
            ) from None
        raise DataError(f"the head did not accept the job: {last_line(error)}") from None


def _describe(job: Job, url: str, root: Path) -> str:
    files = code_files(root)
    size = sum(path.stat().st_size for path in files.values())
    passed = [*job.plain, *(f"{name} (secret)" for name in job.secret)]
    rows = {
        "job": job.name,
        "cluster": url,
        "command": job.entrypoint,
        "code": f"{len(files)} files, {size / 1000:.0f} kB, {job.spec.fingerprint[:12]}",
        "variables": ", ".join(passed),
    }
    return "".join(f"{name:<10} {value}\n" for name, value in rows.items())


def _shown(job: Job) -> dict[str, Any]:
    """The job as --dry-run prints it: complete, with *** for every secret."""
    return {
        "submission_id": job.name,
        "entrypoint": job.entrypoint,
        "entrypoint_num_cpus": job.num_cpus,
        "runtime_env": job.runtime_env("(a copy of the code)"),
        "secrets": dict.fromkeys(job.secret, "***"),
        "spec": {**dataclasses.asdict(job.spec), "tracking_uri": masked(job.spec.tracking_uri or "")},
    }
