"""The peak of memory is a process's own: it follows what it holds, and not what started it."""

import subprocess
import sys

LARGE = 300_000_000
CHILD = "from pipeline.io.peak_memory import peak_bytes; print(peak_bytes())"


def _peak(code: str) -> int:
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def test_the_peak_follows_what_the_process_held_before() -> None:
    assert LARGE < _peak(f"held = b'x' * {LARGE}; del held; {CHILD}") < 1.5 * LARGE


def test_a_small_process_of_a_large_one_has_a_small_peak() -> None:
    parent = f"import subprocess, sys; held = b'x' * {LARGE}; subprocess.run([sys.executable, '-c', {CHILD!r}])"
    assert _peak(parent) < LARGE / 3
