"""The code that a job runs: our four packages and nothing else, with one fingerprint that every node can recompute."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError

from .environment import SECRETS_FILE, SETUP_HOOK, job_variables

PACKAGES = ("pipeline", "focusvit", "transfer", "cluster")
# Ray's dashboard refuses larger uploads (DASHBOARD_CLIENT_MAX_SIZE), with an error that names neither file nor limit.
MAX_BYTES = 100 * 2**20


def checkout_root() -> Path:
    """The folder that holds the four packages of the running code."""
    return Path(__file__).resolve().parents[2]


def code_files(root: Path) -> dict[str, Path]:
    """Relative path -> file, sorted: everything in our packages but caches and hidden files."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            relative = path.relative_to(root)
            if path.is_file() and not any(part == "__pycache__" or part.startswith(".") for part in relative.parts):
                found[relative.as_posix()] = path
    return found


def fingerprint(root: Path) -> str:
    """sha256 of names and bytes of the code. Equal on two nodes means that they run the same code."""
    digest = hashlib.sha256()
    for name, path in code_files(root).items():
        content = path.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def stage(root: Path, folder: Path) -> int:
    """Copy the code into an empty `folder`; returns its bytes.

    Raises UsageError when that is more than a Ray head accepts, naming the largest files.
    """
    files = code_files(root)
    sizes = {name: path.stat().st_size for name, path in files.items()}
    total = sum(sizes.values())
    if total > MAX_BYTES:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
        named = ", ".join(f"{name} ({sizes[name] / 2**20:.0f} MiB)" for name in largest)
        raise UsageError(
            f"the code to ship is {total / 2**20:.0f} MiB, and a Ray head accepts {MAX_BYTES / 2**20:.0f} MiB. The "
            f"largest files are {named}: move data and runs out of {', '.join(PACKAGES)}."
        )
    for name, path in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return total


@contextmanager
def brought_along() -> Iterator[dict[str, Any]]:
    """What a process that joins a cluster by --ray-address takes along, as `submit` does: a runtime environment for
    `ray.init`, which uploads its folder. On leaving, the folder here is removed.
    """
    plain, secret = job_variables(os.environ)
    with tempfile.TemporaryDirectory(prefix="focusvit-join-") as folder:
        stage(checkout_root(), Path(folder))
        if secret:  # in the package and not in the environment, which Ray shows and logs
            Path(folder, SECRETS_FILE).write_text(json.dumps(secret))
        yield {"working_dir": folder, "env_vars": plain, "worker_process_setup_hook": SETUP_HOOK}
