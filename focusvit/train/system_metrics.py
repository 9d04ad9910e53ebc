"""What each machine of a training does meanwhile: CPU, memory, network, GPU, under the names that MLflow's pages know.

Workers measure, the points of the run directory carry it: only the driver ever talks to a tracking server.
"""

import importlib.util
import logging
import math
import re
import socket
import statistics
import time
from collections.abc import Callable

import torch

from . import ranks

try:
    import psutil
except ImportError:  # a GPU machine that has little but torch
    psutil = None  # type: ignore[assignment]

log = logging.getLogger(__name__)
MAX_NAMES = 30  # so that a run keeps at most 60 metric names; beyond, the mean and the ends are enough


class SystemMetrics:
    """Every rank tells of its own GPU, the first rank of a machine of the machine. Every rank must construct it and
    call `values` at the same steps.
    """

    def __init__(self, device: torch.device) -> None:
        hosts, rank = ranks.gather(socket.gethostname()), ranks.rank()
        self._device, self._gpu = device, hosts[:rank].count(hosts[rank])
        self._node = f"node_{list(dict.fromkeys(hosts)).index(hosts[rank])}"
        self._network, self._at = _network_bytes(), time.monotonic()
        self._machine()  # the first call only starts the measurement
        if device.type == "cuda" and rank == 0 and importlib.util.find_spec("pynvml") is None:
            log.warning("the curves will not show how busy GPUs are: pip install 'focusvit[gpu]' on every node")

    def values(self) -> dict[str, float]:
        """'system/node_0/cpu_utilization_percentage' and so on since the last call; a collective."""
        mine = self._machine() if self._gpu == 0 else {}
        if self._device.type == "cuda":
            free, total = torch.cuda.mem_get_info(self._device)
            mine[f"gpu_{self._gpu}_utilization_percentage"] = _gpu_percent(self._device)
            mine[f"gpu_{self._gpu}_memory_usage_megabytes"] = (total - free) / 1e6
        said = ranks.gather({f"{self._node}/{name}": value for name, value in mine.items() if not math.isnan(value)})
        found = {name: value for part in said for name, value in part.items()}
        return {f"system/{name}": value for name, value in (found if len(found) <= MAX_NAMES else _ends(found)).items()}

    def _machine(self) -> dict[str, float]:
        if psutil is None:
            return {}
        network, now = _network_bytes(), time.monotonic()
        rate = (network - self._network) / 1e6 / max(1e-3, now - self._at)
        self._network, self._at = network, now
        return {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": psutil.virtual_memory().used / 1e6,
            "network_megabytes_per_s": rate,
        }


def _ends(found: dict[str, float]) -> dict[str, float]:
    """Mean, highest and lowest of each kind of value over all machines, and over all GPUs."""
    kinds: dict[str, list[float]] = {}
    for name, value in found.items():
        kinds.setdefault(re.sub(r"^node_\d+/(gpu_)?(?:\d+_)?", r"\1", name), []).append(value)
    ways: dict[str, Callable[[list[float]], float]] = {"mean": statistics.fmean, "highest": max, "lowest": min}
    return {f"{way}/{kind}": float(of(values)) for way, of in ways.items() for kind, values in kinds.items()}


def _network_bytes() -> float:
    counted = psutil.net_io_counters() if psutil is not None else None
    return float(counted.bytes_sent + counted.bytes_recv) if counted else 0.0


def _gpu_percent(device: torch.device) -> float:
    """NaN without nvidia-ml-py, which torch asks, and where it has no answer: a part of a GPU (MIG), WSL."""
    try:
        return float(torch.cuda.utilization(device))
    except Exception:  # NVMLError is an Exception and no more; no training ends for want of a curve
        return float("nan")
