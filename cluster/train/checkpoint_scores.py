"""kNN and few-shot of each checkpoint while the training goes on: Ray tasks on a CPU that the training leaves free.

The driver looks for new checkpoints, copies their weights (the training may delete its own), and lets one task after
another score them. One checkpoint is scored and at most one waits: of those that come faster than they can be scored,
only the newest waits, and the others are named. Points go to `transfer.jsonl` of the run directory and from there to
the tracker, keyed by samples seen. Nothing here can stop or slow a training: what fails is said and left out.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from focusvit.runs.metrics_log import MetricsLog
from focusvit.runs.run_dir import RunDir
from pipeline.errors import last_line
from pipeline.io import storage
from pipeline.shards.dataset import open_dataset
from transfer.checkpoint_score import ScoreSpec, score_checkpoint
from transfer.tasks.known_tasks import parse_task
from transfer.tasks.task import Task

from .background import repeated

POINTS = "transfer.jsonl"
_EVERY_S = 1.0
_COPIED = ("model.safetensors", "checkpoint.json")  # in this order: the second one makes a checkpoint complete


def check_task(text: str) -> Task:
    """The task of --score-on, opened once so that a mistake is said before anything starts. Raises UsageError."""
    task = parse_task(text)
    open_dataset(task.uri).split(task.train)
    return task


@contextmanager
def scored_checkpoints(run_dir: str, score_on: str | None) -> Iterator[None]:
    """Inside, every finished checkpoint of `run_dir` is scored on the task; leaving waits for those under way."""
    if not score_on:
        yield
        return
    scorer = _Scorer(RunDir(run_dir), check_task(score_on))
    with repeated(scorer.look, _EVERY_S, "scoring"):  # left only when no call is under way: two would start one twice
        yield
    while scorer.look():  # those under way; an exception leaves them behind
        time.sleep(_EVERY_S)


class _Scorer:
    """Copies checkpoints as they appear and scores them, one at a time, in order: the tracker wants it."""

    def __init__(self, run: RunDir, task: Task) -> None:
        self._run, self._task = run, task
        self._log = MetricsLog(run, name=POINTS)
        self._seen = {point["samples"] for point in self._log.points}
        self._waiting: tuple[int, str] | None = None
        self._running: tuple[int, str, Any] | None = None

    def look(self) -> int:
        """How many checkpoints wait or are being scored."""
        try:
            self._find()
        except Exception as error:  # a store that does not answer now may answer next time
            self._say(f"cannot look for checkpoints ({last_line(error)})")
        self._advance()
        return bool(self._waiting) + bool(self._running)

    def _find(self) -> None:
        for samples in self._run.checkpoints():
            if samples not in self._seen:
                place = self._copy(samples)
                self._seen.add(samples)
                if place and self._waiting:
                    skipped, copy = self._waiting
                    self._remove(copy)
                    self._say(f"slower than the training: the checkpoint at {skipped} samples is skipped")
                if place:
                    self._waiting = (samples, place)
                    self._advance()

    def _advance(self) -> None:
        """Take the scores that are ready, then give out the next checkpoint."""
        import ray

        try:
            if self._running:
                samples, place, score = self._running
                if not ray.wait([score], timeout=0)[0]:
                    return
                self._running = None
                self._remove(place)
                self._log.append(samples, ray.get(score))
                self._log.flush()
            if self._waiting:
                (samples, place), self._waiting = self._waiting, None
                spec = ScoreSpec(checkpoint=place, task=self._task)
                self._running = (samples, place, ray.remote(num_cpus=1, max_retries=1)(score_checkpoint).remote(spec))
        except Exception as error:  # the training must not notice
            self._say(f"the checkpoint at {samples} samples was not scored ({last_line(error)})")

    def _copy(self, samples: int) -> str | None:
        """A copy of the checkpoint's weights; None when the training deleted it in this moment."""
        there, here = self._run.checkpoint_uri(samples), self._run.path("scored", f"{samples:012d}")
        try:
            for name in _COPIED:
                storage.put(storage.join(here, name), storage.read_bytes(storage.join(there, name)))
        except FileNotFoundError:
            self._say(f"the checkpoint at {samples} samples was replaced before it could be scored")
            return None
        return here

    def _remove(self, place: str) -> None:
        for name in reversed(_COPIED):
            storage.remove(storage.join(place, name))

    def _say(self, text: str) -> None:
        sys.stderr.write(f"scoring on {self._task.name}: {text}\n")
