"""A training whose workers fail says so where people look: in the driver's log, in `jobs status`, in Ray's metrics."""

import logging

import pytest
from ray.exceptions import ActorDiedError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from cluster.jobs import watch as jobs
from cluster.train.watching import NoteFailures, holders, told_failures
from focusvit.runs.run_dir import RunDir
from pipeline.io import storage
from testkit.fake_job import FakeClient

# The log of a driver whose cluster lost a node, shortened; the second failure is made up.
RECORDED = (
    "\rtrain:  33%|###3      | 1.28k/3.84k [00:16<00:32, 80.0img/s, loss=1.334, img/s=423, val_top1=0.250]"
    "\r                    \rtraining workers failed, time 1 "
    "(they are started again at most 3 times), seen at rank 0: [pair.cc:537] Read error [127.0.0.1]:56725: Connection "
    "reset by peer. This is typically caused by a remote worker hanging or bugs in the application.\n"
    "\rtrain:  33%|###3      | 1.28k/3.84k [01:16<1:36:04, 2.25s/img, loss=1.334, img/s=423, val_top1=0.250]\n"
    "training workers failed, time 2 (they are started again at most 3 times), seen at rank 0: RuntimeError: no space\n"
    "\rtrain:  67%|######6   | 2.56k/3.84k [02:15<00:05, 39.0img/s, loss=1.200, img/s=420, val_top1=0.250]"
)


def test_the_status_of_a_job_counts_failures_and_shows_the_last_cause() -> None:
    row = jobs.status_of(FakeClient(log=[RECORDED]), "one")  # type: ignore[arg-type]
    assert (row["worker_failures"], row["last_failure"]) == (2, "seen at rank 0: RuntimeError: no space")
    assert row["bar"]["percent"] == 67
    shown = jobs._status_text(row)
    assert "worker_failures 2\n" in shown and "last_failure    seen at rank 0: RuntimeError: no space" in shown
    quiet = jobs.status_of(FakeClient(log=["train: nothing happened\n"]), "one")  # type: ignore[arg-type]
    assert (quiet["worker_failures"], quiet["last_failure"]) == (0, "")


def test_what_the_controller_notes_the_driver_tells_once(tmp_path, caplog) -> None:
    """The dead worker is the cause, not the one that lost its connection to it; an earlier start is not told again."""
    died = WorkerHealthCheckFailedError("Worker health check failed.", ActorDiedError())
    controller = NoteFailures(str(tmp_path))
    controller.after_exception(None, {0: RuntimeError("an earlier start")})
    with told_failures(str(tmp_path), max_failures=3, every_s=0.01):
        controller.after_exception(None, {0: RuntimeError("Connection closed by peer"), 1: died})
        controller.after_exception(None, {0: ValueError("Traceback\n  line 3\nValueError: 7\n")})
    told = [record for record in caplog.records if record.name == "cluster.train.watching"]
    assert [record.levelno for record in told] == [logging.WARNING] * 2
    row = jobs.status_of(FakeClient(log=[f"{record.getMessage()}\n" for record in told]), "one")  # type: ignore[arg-type]
    assert (row["worker_failures"], row["last_failure"]) == (2, "seen at rank 0: ValueError: 7")
    assert told[0].facts["rank"] == 1 and "The actor died unexpectedly" in told[0].facts["reason"]


def test_an_error_of_the_user_is_told_by_the_driver_alone(tmp_path, caplog) -> None:
    with told_failures(str(tmp_path), max_failures=3):
        storage.put_json(RunDir(str(tmp_path)).path("error.json"), {"kind": "UsageError", "text": "value 7"})
        NoteFailures(str(tmp_path)).after_exception(None, {0: RuntimeError("value 7")})
    assert not caplog.records


def test_a_place_that_cannot_be_written_does_not_end_the_training(tmp_path) -> None:
    (tmp_path / "failures").write_text("in the way")
    NoteFailures(str(tmp_path)).after_exception(None, {0: RuntimeError("x")})
    with pytest.raises(KeyError, match="from the training"), told_failures(str(tmp_path), max_failures=3):
        raise KeyError("from the training")


def group(job: str, state: str, *gpus: float) -> dict:
    bundles = {number: {"CPU": 1.0, **({"GPU": count} if count else {})} for number, count in enumerate(gpus)}
    return {"placement_group_id": f"0123456789abcdef0123456789ab{job}", "state": state, "bundles": bundles}


def test_other_jobs_are_named_with_what_they_hold_the_most_first() -> None:
    groups = {
        "a": group("02000000", "CREATED", 1, 1),
        "b": group("03000000", "CREATED", 3),
        "c": group("02000000", "CREATED", 0.5),
        "d": group("04000000", "PENDING", 8),  # waits as we do
        "e": group("05000000", "REMOVED", 8),
        "f": group("06000000", "CREATED", 0),  # CPUs only
        "g": group("01000000", "CREATED", 4),  # our own
    }
    found = holders("GPU", groups, "01000000", {"02000000": "python train.py on 10.0.0.7"})
    assert found == ["job 03000000 (unknown command): 3", "job 02000000 (python train.py on 10.0.0.7): 2.5"]
    assert holders("GPU", {}, "01000000", {}) == []
