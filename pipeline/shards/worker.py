"""What every executor runs with the spec of a shard: build it from the plan's rows, commit it, mark it as done."""

import logging
import time
from contextlib import closing, nullcontext
from functools import partial
from typing import Any

from pipeline.io import storage
from pipeline.plan.plan import read_shard_rows

from .build import BuiltShard, ShardSpec, build_shard, make_sample, prove_machine
from .dataset import plan_uri, sidecar_uri
from .fingerprint import machine
from .interop import dali_index, dali_name
from .isolate import IsolatedMaker
from .sidecar import sidecar_bytes, sidecar_of

log = logging.getLogger(__name__)  # silent unless somebody listens: in jobs, cluster/jobs/worker_log.py does


def run_shard(spec: ShardSpec) -> dict[str, Any]:
    """Build and commit one shard; returns what the driver keeps of it (about 1 KB).

    The tar is put first and its sidecar last: the sidecar is the mark of completion, so a worker killed in between
    costs a rebuild to the same bytes. Raises OSError (worth another try) and DataError (not).
    """
    prove_machine(spec.golden)
    started = time.perf_counter(), time.process_time()
    rows = read_shard_rows(plan_uri(spec.out, spec.split), spec.shard)
    here = partial(make_sample, source=spec.source, image=spec.image, superpixels=spec.superpixels)
    with closing(IsolatedMaker(here)) if spec.isolated else nullcontext(here) as make:
        built = build_shard(rows, make)
    result = commit_shard(spec, built, started)
    told = {name: result[name] for name in ("num_samples", "num_bad", "wall_s", "cpu_s")}
    log.info("shard finished", extra={"facts": {"run": spec.fingerprint[:12], "shard": spec.name, **told}})
    return result


def commit_shard(spec: ShardSpec, built: BuiltShard, started: tuple[float, float]) -> dict[str, Any]:
    """Put the tar, what goes with it, and last the sidecar. `started` is (wall, CPU) seconds at the begin.

    A shard with bad samples is not written unless the spec skips these.
    """
    written = spec.skip_bad or not built.bad
    timing = {
        "wall_s": round(time.perf_counter() - started[0], 3),
        "cpu_s": round(time.process_time() - started[1], 3),
        "machine": machine(),
    }
    sidecar = sidecar_of(built, spec.fingerprint, spec.shard, timing)
    if written:
        storage.put(storage.join(spec.out, spec.name), built.data)
        storage.put(storage.join(spec.out, dali_name(spec.split, spec.shard)), dali_index(built.data))
        storage.put(sidecar_uri(spec.out, spec.split, spec.shard), sidecar_bytes(sidecar))
    return {
        "shard": spec.shard,
        "written": written,
        "num_samples": sidecar["num_samples"],
        "num_bytes": len(built.data),
        "num_bad": len(built.bad),
        "bad": sidecar["skipped"],
        **timing,
    }
