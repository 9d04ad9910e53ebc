"""What each machine of a training does meanwhile: CPU, memory, network, GPU, under the names that MLflow's pages know.

Workers measure, the points of the run directory carry it: only the driver ever talks to a tracking server.
"""

import math
import socket
import time

import numpy as np
import torch

from focusvit.data.order import key_of

from . import ranks

try:
    import psutil
except ImportError:
    psutil = None  # type: ignore[assignment]

NAMES = ("cpu_utilization_percentage", "system_memory_usage_megabytes", "network_megabytes_per_s")
GPU_NAMES = ("gpu_0_utilization_percentage", "gpu_0_memory_usage_megabytes")
MAX_NODES = 6  # so that a run keeps at most 60 metric names; of the nodes beyond, the busiest and the mean are enough


class SystemMetrics:
    """Samples this machine on its first rank. Every rank must construct it and call `values` at the same steps."""

    def __init__(self, device: torch.device) -> None:
        mine = np.zeros(ranks.world())
        mine[ranks.rank()] = key_of("host", socket.gethostname()) % 2**50  # exact in float64
        hosts = ranks.sum_array(mine).tolist()
        nodes = list(dict.fromkeys(hosts))
        self.num_nodes = len(nodes)
        own = hosts[ranks.rank()]
        # The first rank of a machine speaks for it; the others send zeros.
        self._node = nodes.index(own) if hosts.index(own) == ranks.rank() else None
        self._device, self._names = device, NAMES + (GPU_NAMES if device.type == "cuda" else ())
        self._network, self._at = _network_bytes(), time.monotonic()
        _system()  # the first call only starts the measurement

    def values(self) -> dict[str, float]:
        """'system/node_0/cpu_utilization_percentage' and so on since the last call; a collective."""
        table = np.zeros((self.num_nodes, len(self._names)))
        if self._node is not None:
            table[self._node] = self._sample()
        table = ranks.sum_array(table.ravel()).reshape(table.shape)
        if self.num_nodes <= MAX_NODES:
            rows = {f"node_{i}": row for i, row in enumerate(table)}
        else:
            rows = {"mean": table.mean(0), "highest": table.max(0), "lowest": table.min(0)}
        values = {f"system/{node}/{n}": float(v) for node, row in rows.items() for n, v in zip(self._names, row)}
        return {name: value for name, value in values.items() if not math.isnan(value)}

    def _sample(self) -> list[float]:
        network, now = _network_bytes(), time.monotonic()
        rate = (network - self._network) / 1e6 / max(1e-3, now - self._at)
        self._network, self._at = network, now
        sample = [*_system(), rate]
        if self._device.type == "cuda":
            free, total = torch.cuda.mem_get_info(self._device)
            sample += [_gpu_percent(self._device), (total - free) / 1e6]
        return sample


def _system() -> tuple[float, float]:
    """(CPU %, used MB) of this machine; NaN where psutil is absent, as on a GPU machine that has little but torch."""
    if psutil is None:
        return float("nan"), float("nan")
    return psutil.cpu_percent(), psutil.virtual_memory().used / 1e6


def _network_bytes() -> float:
    counted = psutil.net_io_counters() if psutil is not None else None
    return float(counted.bytes_sent + counted.bytes_recv) if counted else 0.0


def _gpu_percent(device: torch.device) -> float:
    """NaN without nvidia-ml-py, which torch asks, and where it has no answer: a part of a GPU (MIG), WSL."""
    try:
        return float(torch.cuda.utilization(device))
    except Exception:  # NVMLError is an Exception and no more; no training ends for want of a curve
        return float("nan")
