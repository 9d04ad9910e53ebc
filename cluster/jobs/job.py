"""What runs on the cluster: `python -m cluster.jobs.job VERB ...`, the entry of every submitted job and of a RayJob.

The nodes are checked first, then comes the verb, in one process that is already connected: the verb finds Ray
initialised and uses it.
"""

import json
import logging
import os
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from cluster.doctor.finding import as_text, num_broken
from cluster.doctor.services import check_tracking
from focusvit import cli
from pipeline.errors import UsageError

from .environment import SETUP_HOOK, load_secrets
from .node_check import check_nodes
from .package import checkout_root, fingerprint
from .places import SPREAD, check_for_job, places_of, tracking_uri_of
from .worker_log import start_driver

SPEC_FILE = "focusvit-job.json"


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """What the submitting side tells the job beside its command."""

    fingerprint: str
    tracking_uri: str | None
    check_nodes: bool = True

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode()


class ProgressLog:
    """The log of the job, in which progress bars show although it is no terminal: `focusvit jobs status` reads them
    there, and `submit` draws them in place. A bar asks `isatty` before it shows itself."""

    def __init__(self, log: TextIO) -> None:
        self._log = log

    def isatty(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


def main(argv: list[str]) -> int:
    """Exit codes are those of the verb; 1 when the check of the nodes finds something broken."""
    load_secrets()
    try:
        spec = _spec(argv)
    except UsageError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    import ray

    # `submit` names the hook for the whole job; a RayJob's own runtime environment knows nothing of it.
    hook = {} if Path(checkout_root(), SPEC_FILE).is_file() else {"worker_process_setup_hook": SETUP_HOOK}
    quiet = "--verbose" not in argv
    ray.init(address="auto", logging_level=logging.WARNING, log_to_driver=not quiet, runtime_env=hook)
    start_driver()
    # After ray.init, whose own handler would leave at once: the verb may still have a run to close.
    signal.signal(signal.SIGTERM, _interrupt)
    sys.stderr = ProgressLog(sys.stderr)  # type: ignore[assignment]
    if spec.check_nodes and not _checked(argv, spec):
        return 1
    return cli.main(argv)


def _spec(argv: list[str]) -> JobSpec:
    """What `submit` wrote; in a RayJob manifest nobody did, and the code of the image counts."""
    path = Path(checkout_root(), SPEC_FILE)
    if path.is_file():
        return JobSpec(**json.loads(path.read_text()))
    tracking = tracking_uri_of(argv, os.environ.get("MLFLOW_TRACKING_URI"))
    check_for_job(argv, tracking)
    return JobSpec(fingerprint=fingerprint(checkout_root()), tracking_uri=tracking)


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def _checked(argv: list[str], spec: JobSpec) -> bool:
    """Print what the nodes differ in; True when the verb may start."""
    findings = check_nodes(places_of(argv), spec.fingerprint, all_nodes=argv[0] in SPREAD)
    if spec.tracking_uri:
        import ray

        num_nodes = sum(node["Alive"] for node in ray.nodes())
        findings += check_tracking(spec.tracking_uri, num_nodes)
    sys.stderr.write("check of the nodes\n" + as_text(findings))
    if num_broken(findings):
        sys.stderr.write("the job stops before its work: correct what is broken, or submit with --no-check-nodes\n")
        return False
    return True


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
