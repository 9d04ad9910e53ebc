"""A job followed on a real terminal: bars in their place, Ctrl-C with its question and every answer."""

import os
import sys

import pytest

from testkit.checkout import ROOT
from testkit.terminal import Terminal

# A head that nobody can see the difference of: it sends two lines, then a bar that grows for ever.
JOB = """
import asyncio
import sys

from cluster.jobs.follow import follow


class Client:
    async def tail_job_logs(self, job):
        yield "2 nodes run code 0123\\nthe work begins\\n"
        for done in range(100_000):
            yield f"train:   5%|#   | {done}/100000 [00:10<00:14, 20.00img/s, loss=2.5]\\n"
            await asyncio.sleep(0.05)

    def stop_job(self, job):
        sys.stdout.write(f"head: stop {job}\\n")


sys.exit(follow(Client(), "one", "http://head:8265"))
"""


@pytest.fixture
def terminal():
    with Terminal([sys.executable, "-c", JOB], {**os.environ, "PYTHONPATH": str(ROOT)}) as one:
        one.wait_for(" 3/100000", 60)
        yield one


def interrupted(terminal: Terminal, answer: str) -> None:
    terminal.type("\x03")
    terminal.wait_for("[s]top it, [d]etach and leave it running, [c]ontinue", 30)
    terminal.type(answer)


def test_stop(terminal):
    interrupted(terminal, "s\n")
    assert terminal.end(30) == 130
    assert "head: stop one" in terminal.shown and "one: asked to stop" in terminal.shown


@pytest.mark.parametrize("answer", ["d\n", "\n", "\x03"])
def test_detach(terminal, answer):
    interrupted(terminal, answer)
    assert terminal.end(30) == 130
    assert "head: stop" not in terminal.shown
    assert "focusvit jobs logs one --follow --jobs-address http://head:8265" in terminal.shown


def test_continue_shows_no_line_twice_and_bars_stay_in_their_line(terminal):
    interrupted(terminal, "c\n")
    terminal.wait_for("/100000", 30)
    interrupted(terminal, "d\n")
    assert terminal.end(30) == 130
    assert terminal.shown.count("the work begins") == 1
    bars = terminal.shown.split("the work begins")[1].split("[s]top")[0].strip().removesuffix("one runs on.").strip()
    assert bars.count("\x1b[K") > 2 and "\n" not in bars
