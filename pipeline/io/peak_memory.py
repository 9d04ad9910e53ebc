"""The most physical memory that a process has held."""

import resource
import sys
from pathlib import Path


def peak_bytes() -> int:
    """Bytes, of this process since its start.

    From Linux's status file. getrusage's figure survives fork and exec there, so that a process which a large one
    starts begins with the memory of that one; where there is no such file (macOS) it is all there is.
    """
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    for line in lines:
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
