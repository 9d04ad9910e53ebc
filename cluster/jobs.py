"""`focusvit jobs`: list, status, logs and stop of the jobs of a Ray cluster."""

import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pipeline.commandline import parse
from pipeline.errors import UsageError

from .connection import connect, jobs_url
from .follow import follow
from .progress_lines import SHARD_RETRIED, last_bar, worker_failures

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

ACTIONS = ("list", "status", "logs", "stop")
USAGE = "usage: focusvit jobs list | status JOB | logs JOB [--follow] | stop JOB  [--jobs-address http://HEAD:8265]"
STOP_WAIT_S = 45.0  # a job has 30 s to close its run


@dataclass(frozen=True, kw_only=True)
class JobsConfig:
    """Watch and stop jobs: list | status JOB | logs JOB | stop JOB."""

    jobs_address: str | None = None
    """Dashboard of the head, for example http://HEAD:8265; default: RAY_API_SERVER_ADDRESS."""
    follow: bool = False
    """With logs: stay until the job ends, and exit with its code."""
    json: bool = False
    """With list and status: print JSON."""


def main(argv: list[str]) -> int:
    """Exit codes: `status` and `stop` give 0, `logs --follow` the code of the job."""
    action, job, options = _split(argv)
    config = parse(JobsConfig, options, prog=f"focusvit jobs {action}")
    if config.follow and action != "logs":
        raise UsageError(f"--follow belongs to `jobs logs`, not to `jobs {action}`.")
    client = connect(config.jobs_address)
    if action == "list":
        rows = [_row(details) for details in sorted(client.list_jobs(), key=lambda one: one.start_time or 0)]
        sys.stdout.write(json.dumps(rows) + "\n" if config.json else _table(rows))
        return 0
    _check_known(client, job)
    if action == "logs":
        if config.follow:
            return follow(client, job, jobs_url(config.jobs_address))
        sys.stdout.write(client.get_job_logs(job))
        return 0
    if action == "stop":
        return _stop(client, job)
    row = status_of(client, job)
    sys.stdout.write(json.dumps(row) + "\n" if config.json else _status_text(row))
    return 0


def _split(argv: list[str]) -> tuple[str, str, list[str]]:
    """(action, job, options) of the command line."""
    if any(token in ("-h", "--help") for token in argv):
        parse(JobsConfig, ["--help"], prog="focusvit jobs list | status JOB | logs JOB | stop JOB")
    if not argv or argv[0] not in ACTIONS:
        raise UsageError(f"{argv[0] if argv else 'nothing'} is no action of jobs. {USAGE}")
    action, rest = argv[0], argv[1:]
    if action == "list":
        return action, "", rest
    if not rest or rest[0].startswith("--"):
        raise UsageError(f"jobs {action} needs the name of a job; `focusvit jobs list` prints them. {USAGE}")
    return action, rest[0], rest[1:]


def status_of(client: "JobSubmissionClient", job: str) -> dict[str, Any]:
    """The row of `list`, with what the log tells: the last progress bar, and failures that the job went on after."""
    log = client.get_job_logs(job)
    bar = last_bar(log)
    row = _row(client.get_job_info(job))
    row["progress"] = str(bar) if bar else ""
    row["bar"] = asdict(bar) if bar else None
    row["retries"] = log.count(SHARD_RETRIED)
    failures = worker_failures(log)
    row["worker_failures"], row["last_failure"] = len(failures), failures[-1] if failures else ""
    return row


def _row(details: "JobDetails") -> dict[str, Any]:
    started = (details.start_time or 0) / 1000
    ended = (details.end_time or 0) / 1000 or time.time()
    return {
        "job": details.submission_id or details.job_id,
        "status": str(details.status),
        "verb": (details.metadata or {}).get("focusvit_verb", ""),
        "started": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(started)) if started else "",
        "duration_s": round(max(0.0, ended - started)) if started else 0,
        "exit_code": details.driver_exit_code,
        "command": details.entrypoint.split(" -m cluster.job ")[-1],
    }


def _table(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "no jobs\n"
    names = ("job", "status", "started", "duration_s", "command")
    widths = {name: max(len(name), *(len(str(row[name])) for row in rows)) for name in names}
    head = "  ".join(f"{name:<{widths[name]}}" for name in names).rstrip()
    lines = ["  ".join(f"{row[name]!s:<{widths[name]}}" for name in names).rstrip() for row in rows]
    return "\n".join([head, *lines]) + "\n"


def _status_text(row: dict[str, Any]) -> str:
    shown = ["job", "status", "exit_code", "started", "duration_s", "command", "progress", "retries"]
    shown += ["worker_failures", "last_failure"]
    return "".join(f"{name:<15} {row[name]}\n" for name in shown if row[name] not in (None, ""))


def _check_known(client: "JobSubmissionClient", job: str) -> None:
    known = [details.submission_id or details.job_id or "" for details in client.list_jobs()]
    if job not in known:
        shown = ", ".join(known[-5:]) or "none"
        raise UsageError(f"the cluster knows no job '{job}'. The latest are: {shown}.")


def _stop(client: "JobSubmissionClient", job: str) -> int:
    if client.get_job_status(job).is_terminal():
        sys.stdout.write(f"{job} has ended already: {client.get_job_status(job)}\n")
        return 0
    client.stop_job(job)
    until = time.monotonic() + STOP_WAIT_S
    while not client.get_job_status(job).is_terminal() and time.monotonic() < until:
        time.sleep(0.5)
    sys.stdout.write(f"{job}: {client.get_job_status(job)}\n")
    return 0
