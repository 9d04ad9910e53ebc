"""What this machine has: Python, compiler, packages, GPU, memory, disk, ports. Each check returns findings."""

import importlib.util
import json
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path

from pipeline.errors import last_line
from pipeline.io.machine import cpu_flags, version_of

from .finding import Finding, broken, ok, warning

GIB = 2**30
MIN_SHM_BYTES = 2 * GIB  # Docker's default of 64 MiB stops a loader with several processes
MIN_DISK_BYTES = 5 * GIB
RAY_FULL_DISK = 0.95  # Ray refuses new objects on a disk fuller than this (local_fs_capacity_threshold)
# What ray[default] adds to ray: without them the dashboard and the job server do not start.
RAY_DEFAULT_MODULES = tuple("aiohttp aiohttp_cors grpc opencensus prometheus_client opentelemetry colorful".split())
RAY_TRAIN_MODULES = ("pyarrow", "pandas", "fsspec", "requests", "pydantic")
INSTALL = "run `make test`, which installs everything"
REBUILD = "{python} -m pip install --force-reinstall --no-deps --no-cache-dir --no-build-isolation fast-slic==0.4.0"
PACKAGES = ("torch", "ray", "mlflow", "webdataset", "albumentations", "numpy", "numba", "opencv-python-headless")


def check_python() -> list[Finding]:
    return [ok("python", f"{'.'.join(map(str, sys.version_info[:3]))} at {sys.executable}")]


def check_compiler() -> list[Finding]:
    """Only a build needs these; an environment that stands already does not."""
    compiler = next((found for name in ("c++", "g++", "clang++") if (found := shutil.which(name))), None)
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    fix = "needed to build fast-slic; on Debian: apt install g++ make python3-dev"
    if compiler is None:
        return [warning("compiler", "no C++ compiler on PATH", fix)]
    if not header.is_file():
        return [warning("compiler", f"{compiler}, but Python's headers are missing ({header})", fix)]
    return [ok("compiler", f"{compiler}, Python headers in {header.parent}")]


def check_packages() -> list[Finding]:
    versions = {name: version_of(name) for name in PACKAGES}
    if missing := [name for name, version in versions.items() if version is None]:
        return [broken("packages", f"not installed: {', '.join(missing)}", INSTALL)]
    return [ok("packages", ", ".join(f"{name} {version}" for name, version in versions.items()))]


def check_ray_extras() -> list[Finding]:
    if not _installed("ray"):
        return [broken("ray", "not installed", "pip install -c constraints.txt 'ray[default,train]'")]
    absent = [name for name in (*RAY_DEFAULT_MODULES, *RAY_TRAIN_MODULES) if not _installed(name)]
    if absent:
        found = f"{version_of('ray')} without {', '.join(absent)}: dashboard, jobs or training fail"
        return [broken("ray", found, "pip install -c constraints.txt 'ray[default,train]', here and on the head")]
    return [ok("ray", f"{version_of('ray')} with the default and train extras")]


def _installed(name: str) -> bool:
    # colorful puts an object without a spec in its own place once it is imported.
    return name in sys.modules or importlib.util.find_spec(name) is not None


_TRY_SLIC = """
import json, numpy, cfast_slic
from fast_slic import Slic
image = numpy.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=numpy.uint8)
regions = int(Slic(num_components=16).iterate(image).max()) + 1
print(json.dumps({"archs": cfast_slic.get_supported_archs(), "regions": regions}))
"""


def check_fast_slic(python: str = sys.executable, *, flags: frozenset[str] | None = None) -> Finding:
    """Segment one small image with the fast-slic of `python`, in a child process: a build for another CPU ends it."""
    flags = cpu_flags() if flags is None else flags
    rebuild = REBUILD.format(python=python)
    try:
        done = subprocess.run([python, "-c", _TRY_SLIC], capture_output=True, text=True, timeout=120)
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


def check_torch() -> list[Finding]:
    """In a child process: importing torch takes seconds and memory that doctor does not need to keep."""
    code = (
        "import torch; names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())];"
        "print(torch.__version__, torch.version.cuda, torch.distributed.is_available(), ', '.join(names), sep='|')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode != 0:
        return [broken("torch", last_line(done.stderr.strip() or "no output"), INSTALL)]
    version, cuda, distributed, names = done.stdout.strip().split("|")
    has_gpu = Path("/proc/driver/nvidia/version").exists()
    if distributed != "True":
        return [broken("torch", f"{version} without torch.distributed", "install the official torch build")]
    if names:
        return [ok("torch", f"{version}, CUDA {cuda}: {names}")]
    if has_gpu and cuda == "None":
        fix = "install the CUDA build of the same version (pip install torch from the default index)"
        return [warning("torch", f"{version} is a CPU build, and this machine has an NVIDIA driver", fix)]
    if has_gpu:
        fix = "the driver may be older than this CUDA; compare `nvidia-smi` with torch's CUDA version"
        return [warning("torch", f"{version} (CUDA {cuda}) sees no GPU, and this machine has an NVIDIA driver", fix)]
    return [ok("torch", f"{version}, no GPU: training uses gloo on CPU")]


def check_shared_memory(place: Path = Path("/dev/shm"), minimum_bytes: int = MIN_SHM_BYTES) -> list[Finding]:
    if not place.is_dir():
        return [ok("shared memory", f"no {place} on this system: Ray uses its temporary folder")]
    total = shutil.disk_usage(place).total
    if total < minimum_bytes:
        fix = "docker run --shm-size=8g, or an emptyDir of medium Memory on /dev/shm (cluster/configs shows both)"
        return [warning("shared memory", f"{place} {total / GIB:.2f} GiB: Ray and the loader get slow or fail", fix)]
    return [ok("shared memory", f"{place} {total / GIB:.1f} GiB")]


def check_disk(places: list[Path], minimum_bytes: int = MIN_DISK_BYTES) -> list[Finding]:
    findings = []
    for place in places:
        usage = shutil.disk_usage(place)
        share = usage.used / max(1, usage.used + usage.free)
        found = f"{place}: {usage.free / GIB:.1f} GiB free, {share:.0%} used"
        if share > RAY_FULL_DISK or usage.free < minimum_bytes:
            fix = "free some space, or start Ray with --temp-dir on another disk and write to another folder"
            findings.append(broken("disk", f"{found}: Ray stops spilling objects at {RAY_FULL_DISK:.0%}", fix))
        else:
            findings.append(ok("disk", found))
    return findings


def check_ports(ports: dict[str, int]) -> list[Finding]:
    """A busy port is a warning: it may well be the server that one means to use."""
    busy = [f"{port} ({name})" for name, port in ports.items() if not _is_free(port)]
    if busy:
        fix = "if that is not your own Ray head or MLflow, choose others: ray start --port/--dashboard-port, ui --port"
        return [warning("ports", f"in use on this machine: {', '.join(busy)}", fix)]
    return [ok("ports", f"free: {', '.join(f'{port} ({name})' for name, port in ports.items())}")]


def _is_free(port: int) -> bool:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def machine_findings(places: list[Path], ports: dict[str, int]) -> list[Finding]:
    """Every check of the machine, in the order in which a person would set it up."""
    return [
        *check_python(),
        *check_compiler(),
        *check_packages(),
        check_fast_slic(),
        *check_torch(),
        *check_ray_extras(),
        *check_shared_memory(),
        *check_disk(places),
        *check_ports(ports),
    ]
