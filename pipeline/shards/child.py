"""A child process that works on one thing after another, so that what kills it costs only that thing."""

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


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
