"""Writes checkpoints beside the training: the loop waits for a copy in memory, not for the disk."""

import threading
from collections.abc import Callable


class CheckpointWriter:
    """One write at a time, in order. An error of a write is raised by the next call."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def submit(self, write: Callable[[], None]) -> None:
        """Start `write` in a thread; waits first for the one before."""
        self.wait()

        def guarded() -> None:
            try:
                write()
            except BaseException as error:  # a full disk must stop the training, in the training's own thread
                self._error = error

        self._thread = threading.Thread(target=guarded, name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Until everything is written. Raises the error of the last write."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error
