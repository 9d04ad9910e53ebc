"""Something small done again and again beside a training, which it can neither stop nor slow."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)


@contextmanager
def repeated(work: Callable[[], object], every_s: float, name: str, patience_s: float | None = None) -> Iterator[None]:
    """Inside, a thread of this name calls `work` every `every_s` seconds, until it returns True. An error of it is no
    end: a store or a Ray that does not answer now may answer next time. Leaving waits for a call under way, at most
    `patience_s`.
    """
    over = threading.Event()

    def run() -> None:
        while not over.wait(every_s):
            try:
                if work() is True:
                    return
            except Exception as error:
                log.info("%s: no success this time: %s", name, error)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(patience_s)
