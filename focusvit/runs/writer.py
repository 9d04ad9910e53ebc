"""Writes checkpoints beside the training: the loop waits for a copy in memory, not for the disk."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class CheckpointWriter:
    """One write at a time, in order. An error of a write is raised by the next call, in the training's own thread."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._last: Future[None] | None = None

    def submit(self, write: Callable[[], None]) -> None:
        """Start `write` in a thread; waits first for the one before."""
        self.wait()
        self._last = self._pool.submit(write)

    def wait(self) -> None:
        """Until everything is written. Raises the error of the last write."""
        last, self._last = self._last, None
        if last is not None:
            last.result()
