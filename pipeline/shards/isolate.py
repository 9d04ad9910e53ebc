"""Samples made in a child process, so that one which kills its process costs only itself."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from pipeline.image.image import BadImage, ImageConfig
from pipeline.plan.columns import PlanRow
from pipeline.sources import Reader
from pipeline.superpixels.segment import SuperpixelConfig

from .build import Members, make_sample, prove_machine, signal_name

_START_S = 120.0
_TIMEOUT_S = 300.0  # a photo takes 0.02 s; what takes this long never ends


class IsolatedMaker:
    """`make_sample` behind a pipe. A context manager; call it with a row.

    Only a death that repeats in a fresh child counts as the sample's own: then it is a BadImage that names the signal.
    """

    def __init__(
        self,
        source: Reader,
        image: ImageConfig,
        superpixels: SuperpixelConfig,
        make: Callable[..., Members] = make_sample,
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        self._make = (make, source, image, superpixels)
        self._timeout_s = timeout_s
        self._child: Any = None
        self._pipe: Connection | None = None

    def __enter__(self) -> "IsolatedMaker":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def __call__(self, row: PlanRow) -> Members:
        ends = []
        for _ in range(2):
            end, value = self._ask(row)
            if end is None:
                if isinstance(value, Exception):
                    raise value
                return value
            ends.append(end)
        raise BadImage(f"ends the process that prepares it ({' and '.join(sorted(set(ends)))}, twice)")

    def _ask(self, row: PlanRow) -> tuple[str | None, Any]:
        """(None, members or the exception of `make`), or (how the child ended, None)."""
        if self._child is None:
            self._start()
        assert self._pipe is not None
        try:
            self._pipe.send(row)
            if not self._pipe.poll(self._timeout_s):
                self._stop()
                return f"no answer in {self._timeout_s:.0f} s", None
            return None, self._pipe.recv()
        except (EOFError, ConnectionError):
            self._child.join(10)
            end = signal_name(self._child.exitcode)
            self._stop()
            return end, None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy threads and locks of Ray
        self._pipe, far = context.Pipe()
        self._child = context.Process(target=_serve, args=(far, *self._make), daemon=True)
        self._child.start()
        far.close()
        try:  # the time of a sample is counted from here: starting may be slow on a busy machine
            if not self._pipe.poll(_START_S):
                raise EOFError
            self._pipe.recv()
        except (EOFError, ConnectionError):
            self._stop()
            raise OSError("a child process for single samples could not be started (memory?)") from None

    def _stop(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
        if self._child is not None:
            self._child.kill()
            self._child.join()
        self._pipe = self._child = None


def _serve(pipe: Connection, make: Callable[..., Members], *arguments: Any) -> None:
    prove_machine("")
    pipe.send("ready")
    while True:
        try:
            row = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(make(row, *arguments))
        except Exception as error:  # whatever it is, the parent decides
            pipe.send(error)
