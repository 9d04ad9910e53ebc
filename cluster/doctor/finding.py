"""What a check found, and what to do about it. `doctor` and the check of the nodes before a job speak in these."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

from pipeline.io.json_text import json_text

Level = Literal["ok", "warning", "broken"]


@dataclass(frozen=True)
class Finding:
    """One line of a check: `found` names the value seen, `fix` what to change (empty when nothing is wrong)."""

    check: str
    level: Level
    found: str
    fix: str = ""

    def __post_init__(self) -> None:
        if self.level != "ok" and not self.fix:
            raise ValueError(f"the finding '{self.check}: {self.found}' is {self.level} and names no fix")


def ok(check: str, found: str) -> Finding:
    return Finding(check, "ok", found)


def warning(check: str, found: str, fix: str) -> Finding:
    return Finding(check, "warning", found, fix)


def broken(check: str, found: str, fix: str) -> Finding:
    return Finding(check, "broken", found, fix)


def num_broken(findings: Iterable[Finding]) -> int:
    return sum(finding.level == "broken" for finding in findings)


def as_text(findings: list[Finding]) -> str:
    """One aligned line per finding, its fix below it, and a summary line at the end."""
    width = max((len(finding.check) for finding in findings), default=0)
    lines = []
    for finding in findings:
        lines.append(f"{finding.level:<8} {finding.check:<{width}}  {finding.found}")
        if finding.fix:
            lines.append(f"{'':<8} {'':<{width}}  fix: {finding.fix}")
    counts = {level: sum(finding.level == level for finding in findings) for level in ("ok", "warning", "broken")}
    lines.append(f"{counts['ok']} ok, {counts['warning']} warnings, {counts['broken']} broken")
    return "\n".join(lines) + "\n"


def as_json(findings: list[Finding]) -> str:
    """One JSON object: `broken` (a count) and `findings` (a list)."""
    return json_text({"broken": num_broken(findings), "findings": [asdict(finding) for finding in findings]})
