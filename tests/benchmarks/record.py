"""The frame of every bench: its command line, the checkout it measures, its tables printed and saved as they come."""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pipeline.commandline import parse
from pipeline.errors import UsageError
from pipeline.io import storage
from tests.benchmarks import report
from tests.benchmarks.provenance import checkout, evidence
from tests.benchmarks.report import Table

_START = time.monotonic()


@dataclass(frozen=True, kw_only=True)
class RecordConfig:
    """What every bench is asked about its record."""

    name: str = ""
    """results go to tests/benchmarks/results/NAME.json and .md; by default under the bench's own name"""
    changed_checkout: bool = False
    """make the record although files differ from the commit that it names; it then says so"""


@dataclass(frozen=True, kw_only=True)
class TimedConfig(RecordConfig):
    """A bench that takes times."""

    clock: Literal["wall", "cpu"] = "wall"
    """cpu counts the processor's seconds of all threads: for a machine that others use at the same time"""

    @property
    def timer(self) -> Callable[[], float]:
        return time.process_time if self.clock == "cpu" else time.perf_counter

    @property
    def unit(self) -> str:
        """'wall' or 'CPU', before ms or seconds."""
        return "CPU" if self.clock == "cpu" else "wall"

    def check_clock(self, device: str) -> None:
        """Raises ValueError where seconds of the processor say nothing."""
        if self.clock == "cpu" and device != "cpu":
            raise ValueError(f"--clock cpu cannot time the device {device}; use --clock wall")


Config = TypeVar("Config", bound=RecordConfig)


class Record:
    """The tables of one run of a bench, in results/NAME.json and NAME.md after each that is added."""

    def __init__(self, bench: str, name: str, facts: dict[str, Any]) -> None:
        self.bench, self.name, self.facts = bench, name, facts
        self.tables: list[Table] = []

    def say(self, text: str) -> None:
        sys.stdout.write(f"{self.bench}: {text}\n")
        sys.stdout.flush()

    def path(self, suffix: str) -> Path:
        """Where another file of this record goes, such as its picture: results/NAME{suffix}."""
        report.RESULTS.mkdir(parents=True, exist_ok=True)
        return report.RESULTS / f"{self.name}{suffix}"

    def add(self, *tables: Table) -> None:
        """Print the tables, and save all so far: a long run that is stopped keeps what it has."""
        for table in tables:
            sys.stdout.write(table.markdown() + "\n")
        sys.stdout.flush()
        self.tables += tables
        self.save()

    def save(self) -> None:
        """Write the document and the page, with the seconds since the bench was started."""
        facts = {**self.facts, "wall_s": round(time.monotonic() - _START)}
        content = {**facts, "tables": [asdict(table) for table in self.tables]}
        self.path(".json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        lines = [f"- {key}: {_fact(value)}" for key, value in facts.items()]
        body = "\n".join(table.markdown() for table in self.tables)
        self.path(".md").write_text(f"# {self.name}\n\n" + "\n".join(lines) + f"\n\n{body}", encoding="utf-8")

    def end(self) -> int:
        """Say where everything is. Returns the exit code of a bench that is done."""
        for path in (self.path(suffix) for suffix in (".json", ".md", ".jpg")):
            if path.exists():
                self.say(f"wrote {path}")
        return 0


def begin(bench: str, config: type[Config], argv: list[str], packages: Sequence[str] = ()) -> tuple[Config, Record]:
    """The settings of a bench and its empty record, before any work. `packages`: those whose versions matter.

    Raises `UsageError` for wrong settings, and in a checkout that differs from its commit, unless it is told to go on:
    nobody can check out again what such a record is about. The results themselves may differ.
    """
    program = f"python -m tests.benchmarks {bench}"
    settings = parse(config, argv, prog=program)
    facts = evidence(" ".join([program, *without_places(argv)]), packages)
    at = checkout(report.ROOT, ignore=report.RESULTS)
    facts["commit"] = at.commit
    if at.changed:
        shown = f"{', '.join(at.changed[:8])}{' and more' if len(at.changed) > 8 else ''}"
        if not settings.changed_checkout:
            raise UsageError(
                f"this checkout differs from its commit {at.commit} in {shown}: the record would name a commit that "
                "does not make its numbers. Commit first, or give --changed-checkout and the record says so."
            )
        facts["commit"] = f"{at.commit} and changes that no commit holds"
        facts["changed_files"] = shown
    return settings, Record(bench, settings.name or bench, facts)


def without_places(argv: list[str]) -> list[str]:
    """The same words, absolute paths replaced by the name of their option: places of one machine mean nothing on
    another. `--photos /home/me/photos` is told as `--photos PHOTOS`.
    """
    told, option = [], ""
    for word in argv:
        name, equals, value = word.partition("=") if word.startswith("--") else (option, "", word)
        option = name
        place = Path(value).is_absolute()
        known = re.sub(r"\W", "_", name.strip("-")).upper() or "PLACE"
        told.append((f"{name}=" if equals else "") + known if place else word)
    return told


def data_folder(name: str, given: str = "", option: str = "") -> str:
    """`given`, or the folder `name` below $FOCUSVIT_DATA. Raises `UsageError` when it is not there."""
    folder = given or f"{os.environ.get('FOCUSVIT_DATA', '')}/{name}"
    if not storage.exists(folder):
        raise UsageError(
            f"{folder} is not there. Set FOCUSVIT_DATA to the folder that holds {name}"
            + (f", or give {option}." if option else ".")
        )
    return folder


def _fact(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else f"`{value}`"
