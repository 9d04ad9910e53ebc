"""Following a job: its log without repetition, bars in place, its exit code, a lost head, Ctrl-C with a question."""

import io
import types

import aiohttp
import pytest

from cluster.jobs import follow as follow_module
from cluster.jobs.follow import Printer, follow
from cluster.jobs.progress_lines import last_bar, read_bar
from pipeline.errors import DataError
from testkit.fake_job import BAR, FakeClient


def test_bars_are_read_from_a_log():
    bar = read_bar(BAR)
    assert (bar.what, bar.percent, bar.done, bar.total, bar.left, bar.rate, bar.more) == (
        "preprocess", 42, "5", "12", "00:14", "2.00 shard/s", "failures=0")  # fmt: skip
    assert last_bar(f"hello\n{BAR}\rpretrain: 100%|##| 1.2k/1.2k [01:00<00:00, 20img/s]\nbye").what == "pretrain"
    assert read_bar("42% of nothing") is None and last_bar("") is None
    assert str(bar) == "preprocess: 5/12 (42 %), 2.00 shard/s, 00:14 left, failures=0"


def test_the_printer_repeats_nothing_after_an_interruption():
    out = io.StringIO()
    printer = Printer(out)
    printer.restart()
    printer.write("one\ntw")
    printer.restart()  # followed again: Ray sends the log from its start
    printer.write("one\ntwo\nthr")
    printer.restart()
    printer.write("one\n")
    printer.write("two\nthree\n")
    assert out.getvalue() == "one\ntwo\nthree\n"


def test_bars_overwrite_themselves_on_a_terminal_and_stay_lines_in_a_file():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal, file = Terminal(), io.StringIO()
    for out in (terminal, file):
        printer = Printer(out)
        printer.write(f"start\n{BAR}\n{BAR}\nend\n")
    assert terminal.getvalue() == f"start\n\r{BAR}\x1b[K\r{BAR}\x1b[K\nend\n"
    assert file.getvalue() == f"start\n{BAR}\n{BAR}\nend\n"


@pytest.mark.parametrize(
    ("status", "code", "expected"), [("SUCCEEDED", 0, 0), ("FAILED", 2, 2), ("STOPPED", None, 130)]
)
def test_the_exit_code_of_a_job_is_passed_on(capsys, status, code, expected):
    assert follow(FakeClient(status, code), "one", "http://h:1") == expected
    assert capsys.readouterr().out == "hello\n"


@pytest.mark.parametrize(("code", "words"), [(None, "no space left"), (-9, "no space left"), (127, "--python")])
def test_a_job_that_never_ran_says_why(code, words):
    with pytest.raises(DataError, match=words):
        follow(FakeClient("FAILED", code, "Traceback\n  ...\nOSError: no space left on device\n"), "one", "http://h:1")


LOST = [ConnectionError("refused"), RuntimeError("closed"), aiohttp.ServerDisconnectedError()]
LOST.append(aiohttp.WSServerHandshakeError(None, (), status=503))  # a proxy whose dashboard starts again


@pytest.mark.parametrize("error", LOST)
def test_a_lost_head_is_said(monkeypatch, error):
    monkeypatch.setattr(follow_module, "PATIENCE_S", 0.0)
    with pytest.raises(DataError, match=f"no contact with the head.*{type(error).__name__}"):
        follow(FakeClient(fail=error), "one", "http://h:1")


def test_a_head_that_comes_back_is_followed_on(monkeypatch, capsys):
    client = FakeClient(fail=aiohttp.ServerDisconnectedError())

    async def come_back(seconds):
        client.fail = None

    monkeypatch.setattr(follow_module.asyncio, "sleep", come_back)
    assert follow(client, "one", "http://h:1") == 0 and capsys.readouterr().out == "hello\n"


@pytest.mark.parametrize(("answer", "stopped", "code"), [("s\n", ["one"], 130), ("d\n", [], 130), ("", [], 130)])
def test_ctrl_c_asks_stop_or_detach(monkeypatch, capsys, tmp_path, answer, stopped, code):
    client = FakeClient()
    (tmp_path / "typed").write_text(answer)
    monkeypatch.setattr(follow_module, "_tail", lambda *args: None)
    monkeypatch.setattr(follow_module.asyncio, "run", lambda coroutine: (_ for _ in ()).throw(KeyboardInterrupt))
    with (tmp_path / "typed").open() as file:
        shown = types.SimpleNamespace(isatty=lambda: bool(answer), readline=file.readline, fileno=file.fileno)
        monkeypatch.setattr(follow_module.sys, "stdin", shown)
        assert follow(client, "one", "http://h:1") == code and client.stopped == stopped
    said = capsys.readouterr().err
    assert ("asked to stop" in said) == bool(stopped) and (stopped or "focusvit jobs logs one --follow" in said)
