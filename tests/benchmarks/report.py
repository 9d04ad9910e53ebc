"""Benchmark results with their evidence: the same tables printed, as Markdown and as JSON."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "tests" / "benchmarks" / "results"
_START = time.monotonic()


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of values under column names, with a title and what a reader must know."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""

    def markdown(self) -> str:
        lines = [f"### {self.title}", ""]
        lines += ["| " + " | ".join(self.columns) + " |", "|" + " --- |" * len(self.columns)]
        lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in self.rows]
        return "\n".join([*lines, "", self.note, ""] if self.note else [*lines, ""])


def save(name: str, tables: Sequence[Table], facts: dict[str, Any]) -> tuple[Path, Path]:
    """Write `results/{name}.json` and `.md` with the seconds since this module was loaded. Returns both paths."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    document, page = RESULTS / f"{name}.json", RESULTS / f"{name}.md"
    facts = {**facts, "wall_s": round(time.monotonic() - _START)}
    content = {**facts, "tables": [asdict(table) for table in tables]}
    document.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    lines = [f"- {key}: {_fact(value)}" for key, value in facts.items()]
    body = "\n".join(table.markdown() for table in tables)
    page.write_text(f"# {name}\n\n" + "\n".join(lines) + f"\n\n{body}", encoding="utf-8")
    return document, page


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _fact(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else f"`{value}`"
