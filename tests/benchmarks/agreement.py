"""`bench agreement`: the tables of two runs of the benches side by side, made by different processes."""

import json
import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from tests.benchmarks.record import RecordConfig, begin
from tests.benchmarks.report import RESULTS, Table

RATIO = re.compile(r"[+-]?\d[\d,]*\.?\d*\s?[x%]")
"""'2.69x', '95.4 %': what claims are made of. Seconds and rates move with the machine's other work and are left out."""
RATIO_COLUMN = re.compile(r"over .*|exponent|of fast-slic's time")
"""columns whose bare numbers are ratios too"""
BARE = re.compile(r"[+-]?\d+\.\d+")


@dataclass(frozen=True, kw_only=True)
class AgreementConfig(RecordConfig):
    """Two folders of results."""

    before: str
    """folder with the NAME.json of an earlier run, for example tests/benchmarks/results of another checkout"""
    after: str = str(RESULTS)
    """folder with the NAME.json of the later run"""
    names: tuple[str, ...] = ()
    """only these results; by default all that both folders hold and that were made at different times"""
    spread: float = 0.1
    """relative difference up to which two ratios agree"""

    def __post_init__(self) -> None:
        if not 0 < self.spread < 1:
            raise ValueError(f"--spread is {self.spread}; it must lie between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One ratio that both runs have."""

    where: str
    before: float
    after: float

    @property
    def difference(self) -> float:
        """|after - before| relative to the larger of the two; 0 where both are 0."""
        largest = max(abs(self.before), abs(self.after))
        return abs(self.after - self.before) / largest if largest else 0.0


def ratios(tables: list[dict[str, Any]]) -> Iterator[tuple[tuple[str, str, str], float]]:
    """((title, row, column), value) of every cell that is a ratio or a share; rows are told by their first cells."""
    for table in tables:
        rows = table["rows"]
        enough = next((n for n in range(1, 5) if len({tuple(map(str, row[:n])) for row in rows}) == len(rows)), 4)
        for row in rows:
            told = ", ".join(map(str, row[:enough]))
            for column, value in zip(table["columns"][1:], row[1:], strict=True):
                pattern = BARE if RATIO_COLUMN.fullmatch(column) else RATIO
                if isinstance(value, str) and pattern.fullmatch(value):
                    yield (table["title"], told, column), float(value.rstrip("x% ").replace(",", ""))


def shared_cells(before: dict[str, Any], after: dict[str, Any]) -> list[Cell]:
    """The ratios that both results have, those left out that are 1 (or 100 %) by definition in both."""
    old, new = dict(ratios(before["tables"])), dict(ratios(after["tables"]))
    return [
        Cell(where=": ".join(where), before=old[where], after=new[where])
        for where in new
        if where in old and not (old[where] == new[where] and new[where] in (1.0, 100.0))
    ]


def compare(config: AgreementConfig) -> Table:
    """Raises `UsageError` when no result is in both folders."""
    rows = []
    names = config.names or tuple(sorted(path.stem for path in Path(config.after).glob("*.json")))
    for name in names:
        old, new = (_read(Path(folder) / f"{name}.json") for folder in (config.before, config.after))
        if old is None or new is None or (old == new and not config.names):
            continue
        cells = shared_cells(old, new)
        if not cells:
            continue
        worst = max(cells, key=lambda cell: cell.difference)
        within = sum(cell.difference <= config.spread for cell in cells)
        rows.append(
            (name, _origin(old), _origin(new), len(cells), f"{within} of {len(cells)}",
             f"{statistics.median(cell.difference for cell in cells):.1%}",
             f"{worst.difference:.1%} ({worst.before:g} and {worst.after:g}): {worst.where}")
        )  # fmt: skip
    if not rows:
        raise UsageError(
            f"{config.before} and {config.after} have no two different results of one name. Run a bench again, or "
            "name the folder of another checkout's tests/benchmarks/results in --before."
        )
    return Table(
        title="Two runs by different processes",
        columns=(
            "result", "before", "after", "ratios", f"within {config.spread:.0%}", "median difference",
            "largest difference",
        ),
        rows=rows,
        note="Ratios and shares only; differences are relative to the larger value. A row whose code changed between "
        "the commits shows that change too.",
    )  # fmt: skip


def _origin(result: dict[str, Any]) -> str:
    """'8aa9b15 on AMD EPYC'"""
    processor = str(result.get("machine", "unknown")).split(",")[0].split("(R) Processor")[0]
    return f"{result['commit']} on {processor}"


def _read(path: Path) -> dict[str, Any] | None:
    found: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    return found if found and "tables" in found else None


def main(argv: list[str]) -> int:
    """Print and save the comparison."""
    config, record = begin("agreement", AgreementConfig, argv)
    record.add(compare(config))
    return record.end()
