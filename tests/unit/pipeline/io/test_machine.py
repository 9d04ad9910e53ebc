"""CPUs and memory as the control groups around a process allow, of both versions and at any height."""

import os
from pathlib import Path

import pytest

from pipeline.io.machine import free_memory_bytes, usable_cpus

ALL = len(os.sched_getaffinity(0))
GIB = 2**30


def machine(root: Path, groups: str, files: dict[str, str]) -> Path:
    """A made-up /proc and /sys with 8 GiB available."""
    files = {"proc/self/cgroup": groups, "proc/meminfo": f"MemTotal: 99 kB\nMemAvailable: {8 * 2**20} kB\n", **files}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V1 = "5:cpu,cpuacct:/docker/a\n4:memory:/docker/a\n1:name=systemd:/docker/a\n"


@pytest.mark.parametrize(
    ("groups", "files", "cpus"),
    [
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),  # half a CPU
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "max 100000\n"}, ALL),
        ("0::/pod/one\n", {"sys/fs/cgroup/pod/cpu.max": "100000 100000\n"}, 1),  # the group above decides
        ("0::/pod/one\n", {"sys/fs/cgroup/pod/one/cpu.max": "900000 1000\n"}, ALL),
        (V1, {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 1),
        (V1, {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, ALL),
        (V1, {}, ALL),
    ],
)
def test_a_quota_of_cpus_is_seen(groups: str, files: dict[str, str], cpus: int, tmp_path: Path) -> None:
    assert usable_cpus(machine(tmp_path, groups, files)) == min(cpus, ALL)


@pytest.mark.parametrize(
    ("groups", "files", "free"),
    [
        ("0::/\n", {}, 8 * GIB),
        ("0::/a\n", {"sys/fs/cgroup/a/memory.max": str(3 * GIB), "sys/fs/cgroup/a/memory.current": str(GIB)}, 2 * GIB),
        ("0::/a\n", {"sys/fs/cgroup/a/memory.max": "max", "sys/fs/cgroup/a/memory.current": str(GIB)}, 8 * GIB),
        (
            "0::/a\n",
            {
                "sys/fs/cgroup/a/memory.max": str(3 * GIB),
                "sys/fs/cgroup/a/memory.current": str(3 * GIB),
                "sys/fs/cgroup/a/memory.stat": f"anon 7\ninactive_file {GIB}\n",
            },
            GIB,
        ),
        (
            V1,
            {
                "sys/fs/cgroup/memory/memory.limit_in_bytes": str(2 * GIB),
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "0",
            },
            2 * GIB,
        ),
    ],
)
def test_a_limit_of_memory_is_seen(groups: str, files: dict[str, str], free: int, tmp_path: Path) -> None:
    assert free_memory_bytes(machine(tmp_path, groups, files)) == free


def test_this_machine_has_some() -> None:
    assert 1 <= usable_cpus() <= ALL and free_memory_bytes() > 2**20
