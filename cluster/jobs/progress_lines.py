"""What the log of a job tells: its progress bars, each refresh a line, and the failures that it went on after."""

import re
from dataclasses import dataclass

SHARD_RETRIED = " is tried again ("  # so the executors say it (pipeline/shards/executors.py)
WORKERS_FAILED = "training workers failed, time "  # so cluster/train/watching.py says it
_FAILURE = re.compile(re.escape(WORKERS_FAILED) + r"\d+ \([^)]*\), (.*)")
_BAR = re.compile(
    r"(?:(?P<what>[^|\r\n]*?):\s*)?(?P<percent>\d+)%\|[^|\r\n]*\|\s*(?P<done>[\d.]+\w?)/(?P<total>[\d.]+\w?)\s*"
    r"\[(?P<elapsed>[\d:]+)<(?P<left>[\d:?]+),\s*(?P<rate>[^,\]]+)(?:,\s*(?P<more>[^\]]*))?\]"
)


@dataclass(frozen=True)
class Progress:
    """The state of one bar: how far, how fast, how long still. Times are text as tqdm writes them."""

    what: str
    percent: int
    done: str
    total: str
    elapsed: str
    left: str
    rate: str
    more: str

    def __str__(self) -> str:
        text = f"{self.what or 'progress'}: {self.done}/{self.total} ({self.percent} %), {self.rate}, {self.left} left"
        return f"{text}, {self.more}" if self.more else text


def read_bar(line: str) -> Progress | None:
    """The bar in a log line; None when the line is something else."""
    found = _BAR.search(line)
    if found is None:
        return None
    parts = {name: (value or "").strip() for name, value in found.groupdict().items()}
    return Progress(**{**parts, "percent": int(parts["percent"])})  # type: ignore[arg-type]


def last_bar(log: str) -> Progress | None:
    """The newest bar of a log."""
    for line in reversed(re.split(r"[\r\n]+", log)):
        if bar := read_bar(line):
            return bar
    return None


def worker_failures(log: str) -> list[str]:
    """Why the workers of a training failed, each time that they did: 'seen at rank 1: ...'."""
    return [reason.strip() for reason in _FAILURE.findall(log)]
