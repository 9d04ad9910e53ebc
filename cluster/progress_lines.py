"""The progress bars of a job, found again in its log, where each refresh of a bar is a line of its own."""

import re
from dataclasses import dataclass

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
