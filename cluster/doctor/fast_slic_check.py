"""fast-slic, tried in a child process: a build for another CPU ends the process that imports it."""

import json
import signal
import subprocess
import sys
from pathlib import Path

from pipeline.errors import last_line

from .finding import Finding, broken, ok, warning

REBUILD = "{python} -m pip install --force-reinstall --no-deps --no-cache-dir --no-build-isolation fast-slic==0.4.0"

_TRY = """
import json, numpy, cfast_slic
from fast_slic import Slic
image = numpy.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=numpy.uint8)
regions = int(Slic(num_components=16).iterate(image).max()) + 1
print(json.dumps({"archs": cfast_slic.get_supported_archs(), "regions": regions}))
"""


def cpu_flags() -> frozenset[str]:
    """The vector instructions of this CPU that matter here; empty where the kernel does not tell."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return frozenset(flags) & {"sse4_2", "avx", "avx2", "fma", "avx512f"}


def check_fast_slic(python: str = sys.executable, *, flags: frozenset[str] | None = None) -> Finding:
    """Segment one small image with the fast-slic of `python`, in a child process."""
    flags = cpu_flags() if flags is None else flags
    rebuild = REBUILD.format(python=python)
    try:
        done = subprocess.run([python, "-c", _TRY], capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        return broken("fast-slic", f"{python} could not run it: {error}", f"build it again: {rebuild}")
    if done.returncode == -signal.SIGILL:
        return broken(
            "fast-slic",
            f"built with instructions that this CPU lacks (it has {', '.join(sorted(flags)) or 'no AVX'}): "
            "importing it ends the process with SIGILL",
            f"build it on this kind of machine ({rebuild}), or install the portable build that "
            "cluster/configs/portable_fast_slic.sh makes. The labels are the same.",
        )
    if done.returncode != 0:
        last = last_line(done.stderr.strip() or f"exit code {done.returncode}")
        missing = "No module named" in last
        fix = "run `make test`, which installs everything" if missing else f"build it again: {rebuild}"
        return broken("fast-slic", last, fix)
    archs = json.loads(done.stdout)["archs"]
    if "x64/avx2" in archs:
        return ok("fast-slic", "0.4.0, AVX2 build, segments a test image")
    if "avx2" in flags:
        return warning("fast-slic", "portable build on a CPU with AVX2: about half the speed", f"rebuild: {rebuild}")
    return ok("fast-slic", "0.4.0, portable build, segments a test image")
