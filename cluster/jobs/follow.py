"""Stay with a job: its log as it grows, its bars in place, Ctrl-C with a question, its exit code at the end."""

import asyncio
import select
import sys
import time
from typing import TYPE_CHECKING, TextIO

from pipeline.errors import DataError, last_line

from .progress_lines import read_bar

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

PATIENCE_S = 60.0  # a head that is busy or restarts its dashboard may be silent for this long
INTERRUPTED = 130


def follow(client: "JobSubmissionClient", job: str, url: str) -> int:
    """Print the log of `job` until it ends; returns its exit code. Ctrl-C asks: stop the job, or leave it running.

    Raises DataError when the head is gone: a job dies with its head.
    """
    printer = Printer(sys.stdout)
    while True:
        try:
            asyncio.run(_tail(client, job, printer))
            return _end(client, job, url)
        except KeyboardInterrupt:
            printer.close_bar()
            code = _ask(client, job, url)
            if code is not None:
                return code


class Printer:
    """Writes new log lines; a progress bar overwrites itself on a terminal. What was
    written before is skipped, so that following again after an interruption does not repeat the log."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._seen, self._read, self._in_bar = out, 0, 0, False

    def restart(self) -> None:
        self._read = 0

    def write(self, text: str) -> None:
        self._read += len(text)
        fresh = text[max(0, len(text) - (self._read - self._seen)) :] if self._read > self._seen else ""
        self._seen = max(self._seen, self._read)
        for line in fresh.splitlines(keepends=True):
            self._line(line)
        self._out.flush()

    def _line(self, line: str) -> None:
        if self._out.isatty() and read_bar(line):
            self._out.write("\r" + line.rstrip("\r\n") + "\x1b[K")
            self._in_bar = True
            return
        self.close_bar()
        self._out.write(line)

    def close_bar(self) -> None:
        if self._in_bar:
            self._out.write("\n")
            self._in_bar = False


async def _tail(client: "JobSubmissionClient", job: str, printer: Printer) -> None:
    """Until the job has ended. A lost connection is taken up again while the head still knows the job."""
    import aiohttp  # Ray's client is made with it

    lost_since: float | None = None
    while True:
        try:
            printer.restart()
            async for text in client.tail_job_logs(job):
                printer.write(text)
                lost_since = None
            if client.get_job_status(job).is_terminal():
                printer.close_bar()
                return
        except (RuntimeError, OSError, aiohttp.ClientError) as error:  # the errors of requests are OSErrors
            now = time.monotonic()
            lost_since = lost_since or now
            if now - lost_since > PATIENCE_S:
                printer.close_bar()
                raise DataError(
                    f"no contact with the head for {PATIENCE_S:.0f} s while following {job} ({error!r}). When the head "
                    "is gone, so is the job: start it, submit the same command again; finished work is kept."
                ) from None
        await asyncio.sleep(1)


def _end(client: "JobSubmissionClient", job: str, url: str) -> int:
    info = client.get_job_info(job)
    status = str(info.status)
    if status == "SUCCEEDED":
        sys.stderr.write(f"{job}: done\n")
        return 0
    if status == "STOPPED":
        sys.stderr.write(f"{job}: stopped; submit the same command again to go on\n")
        return INTERRUPTED
    code = info.driver_exit_code
    if code is None or code < 0:  # it never ran, or a signal ended it
        raise DataError(
            f"{job} failed: {last_line(info.message or 'no reason given')}. Its log: focusvit jobs logs {job} "
            f"--jobs-address {url}"
        )
    if code == 127:
        raise DataError(f"{job} failed: the nodes have no such interpreter. Name theirs with --python.")
    sys.stderr.write(f"{job}: failed with exit code {code}\n")
    return code


def _ask(client: "JobSubmissionClient", job: str, url: str) -> int | None:
    """What Ctrl-C means; None to go on following. Without a terminal nobody can answer: the job is left running."""
    answer = "d"
    if sys.stdin.isatty():
        try:
            sys.stderr.write(f"\n{job} runs on. [s]top it, [d]etach and leave it running, [c]ontinue to follow? ")
            sys.stderr.flush()
            # A Ctrl-C that falls between the question and a blocking read would be noticed after the read only.
            while not select.select([sys.stdin], [], [], 0.2)[0]:
                pass
            answer = (sys.stdin.readline().strip().lower() or "d")[0]
        except KeyboardInterrupt:
            answer = "d"
    if answer == "c":
        return None
    if answer == "s":
        client.stop_job(job)
        sys.stderr.write(f"{job}: asked to stop\n")
        return INTERRUPTED
    sys.stderr.write(
        f"{job} goes on. Watch: focusvit jobs logs {job} --follow --jobs-address {url}. "
        f"Stop: focusvit jobs stop {job} --jobs-address {url}\n"
    )
    return INTERRUPTED
