"""The curves of a run: no point twice, no torn line; in a store as chunks, written beside whoever appends."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from focusvit.runs import metrics_log
from focusvit.runs.metrics_log import MetricsLog, parse_metrics, read_points
from focusvit.runs.run_dir import RunDir
from focusvit.runs.shipper import Shipper
from pipeline.io import storage


def test_points_are_written_once_also_after_a_restart(tmp_path: Path) -> None:
    run = RunDir(str(tmp_path))
    log = MetricsLog(run)
    log.append(10, {"loss": 2.0, "top1": 0.1})
    log.append(20, {"loss": 1.5})
    again = MetricsLog(run)
    assert again.append(20, {"loss": 9.9}) == {}
    assert again.append(20, {"val": 0.5, "loss": 9.9}) == {"val": 0.5}
    points = parse_metrics((tmp_path / "metrics.jsonl").read_bytes())
    keys = [(name, p["samples"]) for p in points for name in p["values"]]
    assert len(keys) == len(set(keys)) == 4
    assert points[1]["values"] == {"loss": 1.5}


def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    MetricsLog(RunDir(str(tmp_path))).append(10, {"loss": 2.0})
    place = tmp_path / "metrics.jsonl"
    place.write_bytes(place.read_bytes() + b'{"samples": 20, "val')
    log = MetricsLog(RunDir(str(tmp_path)))
    log.append(20, {"loss": 1.0})
    assert [p["samples"] for p in parse_metrics(place.read_bytes())] == [10, 20]


def test_an_object_store_gets_every_point_by_flush() -> None:
    run = RunDir("memory://runs/points")
    log = MetricsLog(run, flush_s=1e9)
    log.append(10, {"loss": 2.0})
    log.append(20, {"loss": 1.0})
    log.flush()
    assert [p["samples"] for p in MetricsLog(run).points] == [10, 20]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """(place, bytes) of every write, in order."""
    found: list[tuple[str, int]] = []
    put = storage.put

    def note(place: str, data: bytes) -> None:
        found.append((place.rpartition("/")[2], len(data)))
        put(place, data)

    monkeypatch.setattr(metrics_log.storage, "put", note)
    return found


def test_a_long_log_in_a_store_costs_the_same_at_its_end_as_at_its_beginning(
    sent: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is read back by a writer that goes on, by readers, and by the sender of points, wherever each stood."""
    monkeypatch.setattr(metrics_log, "CHUNK_BYTES", 400)
    run, count = RunDir("memory://runs/long"), 40
    shipped: list[int] = []
    shipper = Shipper(run.uri, None, on_point=lambda point: shipped.append(point["samples"]))
    for number in range(count):
        if number % 10 == 0:
            log = MetricsLog(run, flush_s=1e9)  # as after a kill
        log.append(number, {"loss": 1.0})
        log.flush()
        if number % 7 == 0:
            shipper._read()
    shipper._read()
    log.close()
    assert max(size for _, size in sent) < 600
    assert len({place for place, _ in sent}) == storage.list_names(run.uri).__len__() > 5
    assert [place for place, _ in sent] == sorted((place for place, _ in sent), key=lambda p: int(p[14:] or 0))
    assert [p["samples"] for p in read_points(run)] == [p["samples"] for p in MetricsLog(run).points]
    assert [p["samples"] for p in read_points(run)] == shipped == list(range(count))


def test_whoever_appends_never_waits_for_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that takes long, then fails once: the points come with the next try, each once."""
    run, gate, tries = RunDir("memory://runs/slow"), threading.Event(), 0
    put = storage.put

    def slow(place: str, data: bytes) -> None:
        nonlocal tries
        tries += 1
        assert threading.current_thread() is not threading.main_thread()
        gate.wait(10)
        if tries == 1:
            raise storage.StoreError("not now")
        put(place, data)

    monkeypatch.setattr(metrics_log.storage, "put", slow)
    log = MetricsLog(run, flush_s=0.01)
    started = time.process_time()
    for number in range(5):
        log.append(number, {"loss": 1.0})
        while not tries:  # the first try is under way, and hangs
            time.sleep(0.001)
    assert time.process_time() - started < 5
    gate.set()
    deadline = time.monotonic() + 10
    while log._unsent and time.monotonic() < deadline:
        time.sleep(0.01)
    log.close()
    assert [p["samples"] for p in read_points(run)] == list(range(5)) and tries > 1


def test_a_log_on_a_disk_stays_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_log, "CHUNK_BYTES", 1)
    log: Any = MetricsLog(RunDir(str(tmp_path)))
    for number in range(3):
        log.append(number, {"loss": 1.0})
    log.close()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"] and log._thread is None
