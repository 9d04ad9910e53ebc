"""What runs on the cluster: `python -m cluster.job VERB ...`, the entry of every submitted job.

Probe first, then the verb, in one process that is already connected: the verb finds Ray initialised and uses it.
"""

import json
import logging
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from focusvit import cli

from .doctor_services import check_tracking
from .finding import as_text, num_broken
from .job_environment import load_secrets
from .package import checkout_root
from .places import SPREAD, places_of
from .probe import probe_cluster

SPEC_FILE = "focusvit-job.json"


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """What the submitting side tells the job beside its command."""

    fingerprint: str
    tracking_uri: str | None
    probe: bool = True

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode()


def main(argv: list[str]) -> int:
    """Exit codes are those of the verb; 1 when the probe finds something broken."""
    load_secrets()
    spec = JobSpec(**json.loads(Path(checkout_root(), SPEC_FILE).read_text()))
    import ray

    ray.init(address="auto", logging_level=logging.WARNING)
    # After ray.init, whose own handler would leave at once: the verb may still have a run to close.
    signal.signal(signal.SIGTERM, _interrupt)
    if spec.probe and not _probe(argv, spec):
        return 1
    return cli.main(argv)


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def _probe(argv: list[str], spec: JobSpec) -> bool:
    """Print what the nodes differ in; True when the verb may start."""
    findings = probe_cluster(places_of(argv), spec.fingerprint, all_nodes=argv[0] in SPREAD)
    if spec.tracking_uri:
        import ray

        num_nodes = sum(node["Alive"] for node in ray.nodes())
        findings += check_tracking(spec.tracking_uri, num_nodes)
    sys.stderr.write("probe of the cluster\n" + as_text(findings))
    if num_broken(findings):
        sys.stderr.write("the job stops before its work: correct what is broken, or submit with --no-probe\n")
        return False
    return True


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
