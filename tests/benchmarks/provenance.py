"""Where numbers come from: command, day, commit, versions, machine and the load beside it."""

import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]


def evidence(command: str, packages: Sequence[str]) -> dict[str, Any]:
    """What produced a result: command, day (UTC), commit, versions, machine, and the load beside it."""
    return {
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "commit": str(checkout()),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in packages},
        "machine": f"{_cpu()}, {os.cpu_count()} cores, {platform.system()}",
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


@dataclass(frozen=True)
class Checkout:
    """The commit of a checkout, and the files that differ from it; "no git checkout" and none without git."""

    commit: str
    changed: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.commit}-dirty" if self.changed else self.commit


def checkout(root: Path = _ROOT, ignore: Path | None = None) -> Checkout:
    """What git says of `root`, new files included; changes below `ignore` do not count."""
    top = _git(root, "rev-parse", "--show-toplevel")
    if not top or Path(top[0]).resolve() != root.resolve():  # installed below somebody else's checkout
        return Checkout("no git checkout")
    inside = ignore is not None and ignore.resolve().is_relative_to(root.resolve())
    leave_out = [f":(exclude){os.path.relpath(ignore, root)}"] if ignore and inside else []
    commit = _git(root, "rev-parse", "--short=7", "HEAD")  # git's own choice grows with a repository
    changed = _git(root, "status", "--porcelain", "--", ".", *leave_out)
    if commit is None or changed is None:
        return Checkout("no git checkout")
    return Checkout(commit[0], tuple(line[3:] for line in changed))


def _git(root: Path, *arguments: str) -> list[str] | None:
    """Lines of its answer; None when it fails, or is not installed."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.splitlines() if done.returncode == 0 else None


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
