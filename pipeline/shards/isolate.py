"""Child processes that work on one thing after another, so that what kills one of them costs only that thing."""

import multiprocessing
import signal
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from pipeline.image.image import BadImage
from pipeline.plan.columns import PlanRow

from .build import Members, prove_machine

_START_S = 120.0
_TIMEOUT_S = 300.0  # a photo takes 0.02 s; what takes this long never ends


class ChildEndedError(Exception):
    """The child died, or did not answer in time; the text says how: 'SIGKILL', 'exit code 3', 'no answer in 300 s'."""


class Child:
    """One process that applies `work` to what it is given. When it has died, a new one takes its place."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy threads and locks, of Ray for one
        self.pipe, far = context.Pipe()
        self._process = context.Process(target=_serve, args=(far, work))
        self._process.start()
        far.close()

    def give(self, thing: Any) -> None:
        """Hand one thing over. Raises ChildEndedError."""
        try:
            self.pipe.send(thing)
        except ConnectionError:
            raise self._ended() from None

    def take(self, timeout_s: float | None = None) -> Any:
        """What `work` made of the thing given last. Raises what `work` raised; ChildEndedError."""
        try:
            if not self.pipe.poll(timeout_s):
                raise ChildEndedError(f"no answer in {timeout_s:.0f} s")
            outcome = self.pipe.recv()
        except (EOFError, ConnectionError):
            raise self._ended() from None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def stop(self) -> None:
        self.pipe.close()
        self._process.kill()
        self._process.join()

    def _ended(self) -> ChildEndedError:
        self._process.join(10)
        code = self._process.exitcode
        names = {-number: number.name for number in signal.Signals}
        return ChildEndedError(names.get(code or 0, f"exit code {code}"))


def _serve(pipe: Connection, work: Callable[[Any], Any]) -> None:
    while True:
        try:
            thing = pipe.recv()
            try:
                outcome = work(thing)
            except Exception as error:  # the parent decides
                outcome = error
            pipe.send(outcome)
        except (EOFError, KeyboardInterrupt):
            return


class IsolatedMaker:
    """`make` in a child process: call it with a row, and close it.

    Only a death that repeats in a fresh child counts as the sample's own: then it is a BadImage that names the signal.
    """

    def __init__(self, make: Callable[[PlanRow], Members], timeout_s: float = _TIMEOUT_S) -> None:
        self._work = partial(_made, make)
        self._timeout_s = timeout_s
        self._child: Child | None = None

    def __call__(self, row: PlanRow) -> Members:
        ends = set()
        for _ in range(2):
            child = self._child or self._start()
            try:
                child.give(row)
                return child.take(self._timeout_s)
            except ChildEndedError as end:
                ends.add(str(end))
                self.close()
        raise BadImage(f"ends the process that prepares it ({' and '.join(sorted(ends))}, twice)")

    def _start(self) -> Child:
        self._child = Child(self._work)
        try:  # the time of a sample is counted from here: starting may be slow on a busy machine
            self._child.give(None)
            self._child.take(_START_S)
        except ChildEndedError:
            self.close()
            raise OSError("a child process for single samples could not be started (memory?)") from None
        return self._child

    def close(self) -> None:
        if self._child is not None:
            self._child.stop()
        self._child = None


def _made(make: Callable[[PlanRow], Members], row: PlanRow | None) -> Members:
    """The members of a row; for None, which comes first, the process is made ready."""
    if row is None:
        prove_machine("")
    return make(row) if row else {}
