"""Finished work on disk, found again: training run directories and result files of the transfer suite."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from focusvit.runs.metrics_log import read_points
from focusvit.runs.run_dir import RunDir
from focusvit.runs.sealed_json import parse_object
from pipeline.errors import DataError, UsageError
from pipeline.io import storage
from transfer.tasks.result import Result

_DEPTH = 3  # folders below the named one that are searched
_INSIDE = ("checkpoints", "results", "features", "ray", ".focusvit")  # never hold another run


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """One run directory: its config and its curves, name -> [(samples seen, value)]."""

    name: str
    uri: str
    config: dict[str, Any]
    curves: dict[str, list[tuple[int, float]]]
    run_id: str = ""

    def last(self, name: str) -> float | None:
        """The last point of a curve."""
        points = self.curves.get(name)
        return points[-1][1] if points else None

    def best(self, name: str) -> float | None:
        """The highest point of a curve."""
        points = self.curves.get(name)
        return max(value for _, value in points) if points else None


@dataclass(frozen=True, kw_only=True)
class TransferRun:
    """One results.json of `focusvit transfer`."""

    name: str
    uri: str
    suite: str
    checkpoint: str
    rows: list[Result]
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_runs(places: list[str]) -> tuple[list[TrainingRun], list[TransferRun]]:
    """All runs at or below `places`, in the order of their paths. Raises UsageError for a place without any."""
    trainings: dict[str, TrainingRun] = {}
    transfers: dict[str, TransferRun] = {}
    for place in places:
        found = 0
        for uri, names in _folders(place, _DEPTH):
            name = uri[len(place) :].strip("/") or storage.name_of(uri)
            if {"config.json", "metrics.jsonl"} <= names:
                trainings[uri] = _training(uri, name)
                found += 1
            elif "results.json" in names:
                run = _transfer(uri, name)
                if run is not None:
                    transfers[uri] = run
                    found += 1
        if not found:
            raise UsageError(
                f"{place} holds no finished run: neither a training (config.json, metrics.jsonl) nor results of "
                "`focusvit transfer` (results.json). Name run directories, or a folder above them."
            )
    return list(trainings.values()), list(transfers.values())


def _folders(uri: str, depth: int) -> Iterator[tuple[str, set[str]]]:
    names = set(storage.list_names(uri))
    yield uri, names
    if depth:
        for name in sorted(names - storage.list_sizes(uri).keys()):  # what is no file; a run may be called lr0.001
            if name not in _INSIDE and not name.startswith("."):
                yield from _folders(storage.join(uri, name), depth - 1)


def _training(uri: str, name: str) -> TrainingRun:
    run = RunDir(uri)
    said = run.asked()
    if said is None:
        raise DataError(f"{run.path('config.json')} is damaged, and no checkpoint tells what the run was asked to do.")
    curves: dict[str, list[tuple[int, float]]] = {}
    for point in read_points(run) + read_points(run, "transfer.jsonl"):  # the second: what `--score-on` measured
        for key, value in point["values"].items():
            curves.setdefault(key, []).append((point["samples"], value))
    run_id = str(run.info().get("run_id", ""))
    return TrainingRun(name=name, uri=uri, config=said["config"], curves=curves, run_id=run_id)


def _transfer(uri: str, name: str) -> TransferRun | None:
    place = storage.join(uri, "results.json")
    said = parse_object(storage.read_bytes(place), place)
    if said.get("kind") != "transfer":
        return None
    return TransferRun(
        name=name,
        uri=uri,
        suite=said["suite"],
        checkpoint=said["checkpoint"],
        rows=[Result(**row) for row in said["rows"]],
        failures=said["failures"],
        notes=said.get("notes", []),
    )
