"""Whether the loader of a training keeps up, judged by the points of its curves."""

from typing import Any

SLOW_SHARE = 0.4  # of the training time spent waiting for data
JUDGED_S = 30.0


class LoaderWatch:
    """Judges the share of waiting over `JUDGED_S` of training at a time.

    A loader that starts has processes to start and a queue to fill, and the first point says little else: it is left
    out, like those of an earlier start, which a resumed run shows again. The share of a window of a second swings, so
    windows are put together. A run that ends before is too short for the advice to pay.
    """

    def __init__(self, done: int) -> None:
        """`done`: samples seen when this start of the run began."""
        self._start, self._last = done, done
        self._waited_s = self._seconds = 0.0

    def share(self, point: dict[str, Any]) -> float | None:
        """The share of waiting where `point` completes a slow stretch, else None."""
        samples, values = point["samples"], point["values"]
        if samples <= self._start or "perf/data_wait_share" not in values:
            return None
        first = self._last == self._start
        seconds = (samples - self._last) / values["perf/img_per_s"]  # without scoring and saving, as the share is
        self._last = samples
        if first:
            return None
        self._seconds += seconds
        self._waited_s += seconds * values["perf/data_wait_share"]
        if self._seconds < JUDGED_S:
            return None
        share = self._waited_s / self._seconds
        self._waited_s = self._seconds = 0.0
        return share if share > SLOW_SHARE else None
