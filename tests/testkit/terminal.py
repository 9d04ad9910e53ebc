"""A terminal with a person in front of it: a command on a pty, what it shows, and what is typed."""

import os
import pty
import select
import signal
import time
from collections.abc import Mapping, Sequence


class Terminal:
    """Use it in a `with`; the command's process group is ended with it. `shown` is everything it has written."""

    def __init__(self, command: Sequence[object], environment: Mapping[str, str]) -> None:
        words = [str(word) for word in command]
        self._pid, self._end = pty.fork()  # the child gets the terminal as its controlling one: Ctrl-C is a signal
        if self._pid == 0:
            os.execvpe(words[0], words, dict(environment))
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def wait_for(self, text: str, timeout_s: float) -> None:
        """Until `text` is shown that was not there before the last `wait_for`."""
        start, until = len(self.shown), time.monotonic() + timeout_s
        while text not in self.shown[max(0, start - len(text) + 1) :]:
            assert time.monotonic() < until and self._read(), f"'{text}' is not shown:\n{self.shown[-3000:]}"

    def end(self, timeout_s: float) -> int:
        """Exit code of the command, after reading all that it still shows."""
        until = time.monotonic() + timeout_s
        while self._read():
            assert time.monotonic() < until, f"still running:\n{self.shown[-3000:]}"
        pid, self._pid = self._pid, 0
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def _read(self) -> bool:
        """Take what comes within a quarter of a second; False when the command has closed the terminal."""
        if not select.select([self._end], [], [], 0.25)[0]:
            return True
        try:
            new = os.read(self._end, 65536)
        except OSError:  # Linux says so with EIO
            return False
        self.shown += new.decode(errors="replace")
        return bool(new)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *args: object) -> None:
        if self._pid:
            os.killpg(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._end)
