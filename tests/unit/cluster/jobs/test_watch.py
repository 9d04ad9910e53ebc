"""`focusvit jobs`: list, status, logs and stop of a scripted job."""

import json
import re
import types

import pytest

from cluster.jobs import watch as jobs
from focusvit.cli import main
from pipeline.errors import DataError, UsageError
from testkit.fake_job import BAR, FakeClient


def run_jobs(monkeypatch, client, *argv):
    monkeypatch.setattr(jobs, "connect", lambda address: client)
    return jobs.main([*argv, "--jobs-address", "http://h:1"])


def test_jobs_list_status_logs_stop(monkeypatch, capsys):
    client = FakeClient(log=("hello\n", "train-3.tar is tried again (2 of 3): its worker died\n", BAR + "\n"))
    assert run_jobs(monkeypatch, client, "list") == 0
    assert "info /x" in capsys.readouterr().out
    assert run_jobs(monkeypatch, client, "list", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["duration_s"] == 60
    assert run_jobs(monkeypatch, client, "status", "one") == 0
    shown = capsys.readouterr().out
    assert "5/12 (42 %), 2.00 shard/s, 00:14 left, failures=0" in shown and re.search(r"^retries +1$", shown, re.M)
    assert run_jobs(monkeypatch, client, "status", "one", "--json") == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["retries"], row["bar"]["done"], row["bar"]["left"]) == (1, "5", "00:14")
    assert run_jobs(monkeypatch, client, "logs", "one") == 0
    assert capsys.readouterr().out.startswith("hello\n")
    assert run_jobs(monkeypatch, client, "stop", "one") == 0
    assert "has ended already" in capsys.readouterr().out
    with pytest.raises(UsageError, match="knows no job 'two'"):
        run_jobs(monkeypatch, client, "status", "two")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("", "list,status,logs,stop"),
        ("watch", "invalid choice 'watch'"),
        ("status", "jobs status needs the name of a job; `focusvit jobs list` prints them."),
        ("stop --json", "jobs stop needs the name of a job"),
        ("list one", "jobs list takes no name."),
        ("list --follow", "--follow belongs to `jobs logs`, not to `jobs list`."),
    ],
)
def test_wrong_uses_of_jobs_show_the_right_one(argv, words, capsys):
    try:
        assert main(["jobs", *argv.split()]) == 2
    except SystemExit as left:  # the parser of options ends the program itself
        assert left.code == 2
    said = capsys.readouterr()
    assert words in " ".join((said.out + said.err).split())


def test_a_job_that_does_not_stop_is_no_success(monkeypatch):
    client = FakeClient(status="RUNNING")
    monkeypatch.setattr(jobs, "STOP_WAIT_S", 0.0)
    with pytest.raises(DataError, match=r"one is still RUNNING 0 s after it was asked to stop"):
        run_jobs(monkeypatch, client, "stop", "one")
    assert client.stopped == ["one"]


def test_a_driver_that_joined_by_itself_is_listed_and_has_no_log(monkeypatch, capsys):
    client = FakeClient(status="RUNNING")
    client.info.submission_id, client.info.job_id = None, "02000000"
    assert run_jobs(monkeypatch, client, "list") == 0 and "02000000" in capsys.readouterr().out
    for action in ("status", "logs", "stop"):
        with pytest.raises(UsageError, match="02000000 was not submitted"):
            run_jobs(monkeypatch, client, action, "02000000")


def test_a_reader_that_goes_away_is_not_the_head(monkeypatch):
    def gone(text):
        raise BrokenPipeError

    monkeypatch.setattr(jobs.sys, "stdout", types.SimpleNamespace(write=gone))
    with pytest.raises(BrokenPipeError):  # focusvit/cli.py ends quietly
        run_jobs(monkeypatch, FakeClient(), "logs", "one")


@pytest.mark.parametrize("error", [RuntimeError("Request failed with status code 500: no agent."), ConnectionError()])
def test_a_head_that_does_not_answer_is_said(monkeypatch, error):
    client = FakeClient()

    def lost(job):
        raise error

    monkeypatch.setattr(client, "get_job_logs", lost)
    for action in ("status", "logs"):
        with pytest.raises(DataError, match=rf"did not answer `jobs {action}`: \w+.*[^.]\.$"):
            run_jobs(monkeypatch, client, action, "one")
