"""What this process may use of its machine: packages, and CPUs and memory as the container or job around it allows.

`os.cpu_count()` and `MemTotal` tell of the whole machine. A container, a Kubernetes pod or a Slurm job gets a part of
it by control groups (cgroup v1 or v2), and whoever starts a process for each CPU of the machine there runs them all on
half a CPU, or is killed.
"""

import importlib.metadata
import os
from collections.abc import Iterator
from pathlib import Path


def usable_cpus(root: Path = Path("/")) -> int:
    """Whole CPUs that this process can keep busy, at least 1: its affinity and every quota above it."""
    quotas = [quota for folder in _groups(root, "cpu") if (quota := _cpu_quota(folder)) is not None]
    return max(1, int(min([len(os.sched_getaffinity(0)), *quotas])))


def free_memory_bytes(root: Path = Path("/")) -> int:
    """Bytes that can still be had: what the machine has available, and what every limit above this process leaves."""
    left = [_available(root)]
    for folder in _groups(root, "memory"):
        limit = _number(folder / "memory.max") or _number(folder / "memory.limit_in_bytes")
        used = _number(folder / "memory.current") or _number(folder / "memory.usage_in_bytes")
        if limit is not None:
            left.append(limit - (used or 0) + _cached(folder))
    return max(0, min(left))


def version_of(package: str) -> str | None:
    """Its installed version; None where it is absent."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu_flags() -> frozenset[str]:
    """The vector instructions of this CPU that matter here; empty where the kernel does not tell (not Linux)."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return frozenset(flags) & {"sse4_2", "avx", "avx2", "fma", "avx512f"}


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of this process's control group and of those above it."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        base = root / "sys/fs/cgroup" / (controller if names else "")  # v2 has one tree and no names
        here = base / path.lstrip("/")
        yield here
        while here != base and base in here.parents:
            here = here.parent
            yield here


def _cpu_quota(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        quota_us, period_us = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        return quota_us / period_us if quota_us and period_us and quota_us > 0 else None


def _number(place: Path) -> int | None:
    try:
        return int(place.read_text())
    except (OSError, ValueError):  # not there, or "max"
        return None


def _cached(folder: Path) -> int:
    """Bytes of files that the kernel gives back when memory is asked for; they count as used."""
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(("inactive_file ", "total_inactive_f"))), 0)


def _available(root: Path) -> int:
    lines = (root / "proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
