"""What a process that joins a cluster by --ray-address brings along: code, variables and secrets, as `submit` does."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .environment import SECRETS_FILE, SETUP_HOOK, job_variables
from .package import checkout_root, stage


@contextmanager
def brought_along() -> Iterator[dict[str, Any]]:
    """The runtime environment for `ray.init`, which uploads its folder; on leaving, the folder here is removed."""
    plain, secret = job_variables(os.environ)
    with tempfile.TemporaryDirectory(prefix="focusvit-join-") as folder:
        stage(checkout_root(), Path(folder))
        if secret:  # in the package and not in the environment, which Ray shows and logs
            Path(folder, SECRETS_FILE).write_text(json.dumps(secret))
        yield {"working_dir": folder, "env_vars": plain, "worker_process_setup_hook": SETUP_HOOK}
