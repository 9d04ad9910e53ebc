"""Finding and killing the training workers that this test process started, and nobody else's."""

import os
import random
import signal
import threading
import time
from pathlib import Path

import psutil


def worker_pids() -> list[int]:
    """Pids of Ray Train workers below this process (Ray's own daemons are its children)."""
    found = []
    for process in psutil.Process(os.getpid()).children(recursive=True):
        try:
            if any("RayTrainWorker" in part for part in process.cmdline()):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


class Killer(threading.Thread):
    """Kills a random worker with SIGKILL, each time `count` new points are in metrics.jsonl, `times` times."""

    def __init__(self, run_dir: Path, *, times: int, after_points: int, seed: int = 0) -> None:
        super().__init__(daemon=True)
        self._metrics, self._times, self._after = run_dir / "metrics.jsonl", times, after_points
        self._random = random.Random(seed)
        self.killed: list[int] = []
        self.over = threading.Event()

    def run(self) -> None:
        seen = 0
        while len(self.killed) < self._times and not self.over.wait(0.05):
            points = self._metrics.read_bytes().count(b"\n") if self._metrics.exists() else 0
            workers = [pid for pid in worker_pids() if pid not in self.killed]
            if points >= seen + self._after and workers:
                victim = self._random.choice(workers)
                os.kill(victim, signal.SIGKILL)
                self.killed.append(victim)
                seen = points
                time.sleep(0.5)
