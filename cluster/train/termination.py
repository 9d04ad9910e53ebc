"""SIGTERM to the driver of a training (a scheduler, a machine that goes away): a checkpoint first, then the end."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from focusvit.runs.run_dir import RunDir

GRACE_S = 20.0  # Kubernetes kills after 30 s


@contextmanager
def ended_gently(run: RunDir) -> Iterator[None]:
    """Inside, a SIGTERM asks the training in `run` to save and stop; after GRACE_S, or at once for a second one, it is
    SystemExit(143). FOCUSVIT_GRACE_S sets another time."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def leave(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise SystemExit(128 + signal.SIGTERM)
        asked = True
        # In a thread: the signal may have interrupted the storage library, which could wait for itself.
        threading.Thread(target=run.ask_to_stop, daemon=True).start()
        signal.setitimer(signal.ITIMER_REAL, float(os.environ.get("FOCUSVIT_GRACE_S", GRACE_S)))

    before = signal.signal(signal.SIGTERM, leave), signal.signal(signal.SIGALRM, leave)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGALRM, before[1])
