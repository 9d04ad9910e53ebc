"""SIGTERM or Ctrl-C to the driver of a training: a checkpoint first, then the end."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from focusvit.runs.run_dir import RunDir

GRACE_S = 20.0  # Kubernetes kills after 30 s
_asked_by = int(signal.SIGTERM)


def asked_by() -> int:
    """The number of the signal that asked the last training to end; SIGTERM where it was the file `stop`."""
    return _asked_by


@contextmanager
def ended_gently(run: RunDir) -> Iterator[None]:
    """Inside, a SIGTERM or SIGINT asks the training in `run` to save and stop; after GRACE_S, or at once for a second
    one, it is SystemExit(143), or KeyboardInterrupt for Ctrl-C. FOCUSVIT_GRACE_S sets another time."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    global _asked_by
    _asked_by = int(signal.SIGTERM)
    asked = 0

    def leave(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        global _asked_by
        if asked:
            raise KeyboardInterrupt if asked == signal.SIGINT else SystemExit(128 + asked)
        asked = _asked_by = number
        grace_s = float(os.environ.get("FOCUSVIT_GRACE_S", GRACE_S))
        if number == signal.SIGINT:
            sys.stderr.write(f"\nsaving a checkpoint, then stopping ({grace_s:.0f} s at most; Ctrl-C again: at once)\n")
        # In a thread: the signal may have interrupted the storage library, which could wait for itself.
        threading.Thread(target=run.ask_to_stop, daemon=True).start()
        signal.setitimer(signal.ITIMER_REAL, grace_s)

    numbers = (signal.SIGTERM, signal.SIGALRM, signal.SIGINT)
    before = [signal.signal(number, leave) for number in numbers]
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in zip(numbers, before):
            signal.signal(number, handler)
