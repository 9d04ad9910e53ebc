"""What the journeys share: where they write, and commands as one types them."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path


def fresh_folder(name: str) -> Path:
    """An empty folder for the journey of this name."""
    folder = Path(os.environ.get("JOURNEYS", "build/journeys"), name).absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def focusvit_command(*words: object) -> None:
    """Print and run `focusvit WORDS`. A process of its own: workers of it read the main module again, this script."""
    argv = [str(word) for word in words]
    print(f"$ focusvit {shlex.join(argv)}", flush=True)
    subprocess.run([sys.executable, "-m", "focusvit.cli", *argv], check=True)
