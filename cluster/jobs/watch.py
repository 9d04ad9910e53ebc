"""`focusvit jobs`: list, status, logs and stop of the jobs of a Ray cluster."""

import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cluster.connection import connect, jobs_url
from pipeline.commandline import Positional, aligned, parse, shown_as
from pipeline.errors import DataError, UsageError, first_line
from pipeline.io.json_text import json_text

from .follow import follow
from .progress_lines import SHARD_RETRIED, last_bar, worker_failures

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

STOP_WAIT_S = 45.0  # a job has 30 s to close its run


@dataclass(frozen=True, kw_only=True)
class JobsConfig:
    """Watch and stop jobs: list | status JOB | logs JOB | stop JOB."""

    action: Positional[Literal["list", "status", "logs", "stop"]]
    """What to do."""
    job: Annotated[Positional[str], shown_as(metavar="JOB")] = ""
    """Name of the job, for all but list."""
    jobs_address: str | None = None
    """Dashboard of the head, for example http://HEAD:8265; default: RAY_API_SERVER_ADDRESS."""
    follow: bool = False
    """With logs: stay until the job ends, and exit with its code."""
    json: bool = False
    """With list and status: print JSON."""

    def __post_init__(self) -> None:
        if self.follow and self.action != "logs":
            raise ValueError(f"--follow belongs to `jobs logs`, not to `jobs {self.action}`.")
        if (self.action == "list") == bool(self.job):
            needs = "takes no name" if self.job else "needs the name of a job; `focusvit jobs list` prints them"
            raise ValueError(f"jobs {self.action} {needs}.")


def main(argv: list[str]) -> int:
    """Exit codes: `logs --follow` gives that of the job, `stop` 1 for a job that did not end in STOP_WAIT_S."""
    config = parse(JobsConfig, argv, prog="focusvit jobs")
    action, job = config.action, config.job
    client = connect(config.jobs_address)
    try:
        if action != "list":
            _check_known(client, job)
        told = "" if config.follow else _told(client, action, job, config.json)
    except (RuntimeError, OSError) as error:  # a head that goes away, a node that took the log of its job along
        raise DataError(f"the head did not answer `jobs {action}`: {first_line(error)}.") from None
    if config.follow:
        return follow(client, job, jobs_url(config.jobs_address))
    sys.stdout.write(told)
    return 0


def _told(client: "JobSubmissionClient", action: str, job: str, as_json: bool) -> str:
    """What the action prints."""
    if action == "list":
        rows = [_row(details) for details in sorted(client.list_jobs(), key=lambda one: one.start_time or 0)]
        return json_text(rows) + "\n" if as_json else _table(rows)
    if action == "logs":
        return client.get_job_logs(job)
    if action == "stop":
        return _stop(client, job)
    row = status_of(client, job)
    return json_text(row) + "\n" if as_json else _status_text(row)


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
        "command": details.entrypoint.split(" -m cluster.jobs.job ")[-1],
    }


def _table(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "no jobs\n"
    names = ("job", "status", "started", "duration_s", "command")
    return "\n".join(aligned([names, *([row[name] for name in names] for row in rows)])) + "\n"


def _status_text(row: dict[str, Any]) -> str:
    shown = ["job", "status", "exit_code", "started", "duration_s", "command", "progress", "retries"]
    shown += ["worker_failures", "last_failure"]
    return "".join(f"{name:<15} {row[name]}\n" for name in shown if row[name] not in (None, ""))


def _check_known(client: "JobSubmissionClient", job: str) -> None:
    listed = client.list_jobs()
    known = [details.submission_id for details in listed if details.submission_id]
    if job in known:
        return
    if any(details.job_id == job and not details.submission_id for details in listed):
        raise UsageError(
            f"{job} was not submitted: a program joined the cluster by itself, and Ray keeps no log of it."
        )
    raise UsageError(f"the cluster knows no job '{job}'. The latest are: {', '.join(known[-5:]) or 'none'}.")


def _stop(client: "JobSubmissionClient", job: str) -> str:
    if client.get_job_status(job).is_terminal():
        return f"{job} has ended already: {client.get_job_status(job)}\n"
    client.stop_job(job)
    until = time.monotonic() + STOP_WAIT_S
    while not client.get_job_status(job).is_terminal() and time.monotonic() < until:
        time.sleep(0.5)
    status = client.get_job_status(job)
    if not status.is_terminal():
        raise DataError(
            f"{job} is still {status} {STOP_WAIT_S:.0f} s after it was asked to stop. Look whether it ends: "
            f"focusvit jobs status {job}; its last words: focusvit jobs logs {job}."
        )
    return f"{job}: {status}\n"
